//! From a RunPodSandbox request to what is to be made: pure, all checks in one place.

use k8s_cri::v1::{
    DnsConfig, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, Protocol,
};

use super::Error;
use crate::network::HostPort;

/// What makes two requests the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) attempt: u32,
}

impl Key {
    pub(crate) fn of(metadata: &PodSandboxMetadata) -> Self {
        Self {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            attempt: metadata.attempt,
        }
    }

    /// The same pod, whichever attempt.
    pub(super) fn same_pod(&self, other: &Self) -> bool {
        self.uid == other.uid && self.name == other.name && self.namespace == other.namespace
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} (uid {}, attempt {})", self.namespace, self.name, self.uid, self.attempt)
    }
}

/// A checked request.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) key: Key,
    pub(super) host_network: bool,
    pub(super) host_ipc: bool,
    pub(super) shared_pid: bool,
    pub(super) user: Option<UserMaps>,
    /// Empty: the host's name (host network), or none was asked for.
    pub(super) hostname: String,
    pub(super) ports: Vec<HostPort>,
    /// Name and value, in the form `net.ipv4.ip_forward`.
    pub(super) sysctls: Vec<(String, String)>,
    /// `None`: as the host's.
    pub(super) resolv_conf: Option<String>,
}

/// The maps of a pod's user namespace, as the lines of `uid_map` and `gid_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserMaps {
    pub(super) uids: String,
    pub(super) gids: String,
}

/// Set in every pod with a network of its own, unless the request says otherwise: ports and pings need no capability
/// where the network is the pod's alone.
const DEFAULT_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The longest name that the kernel takes.
const MAX_HOSTNAME: usize = 64;

/// Checks the request.
pub(super) fn check(config: &PodSandboxConfig) -> Result<Plan, Error> {
    let metadata = config.metadata.as_ref().ok_or_else(|| invalid("metadata", "is missing"))?;
    if metadata.name.is_empty() {
        return Err(invalid("metadata.name", "is empty"));
    }
    let options = namespace_options(config);
    for (field, mode, container) in
        [("network", options.network(), false), ("ipc", options.ipc(), false), ("pid", options.pid(), true)]
    {
        let known = matches!(mode, NamespaceMode::Pod | NamespaceMode::Node)
            || (container && mode == NamespaceMode::Container);
        if !known {
            return Err(invalid(field, format!("the namespace mode {mode:?} is not one of a sandbox")));
        }
    }
    let host_network = options.network() == NamespaceMode::Node;
    let host_ipc = options.ipc() == NamespaceMode::Node;
    if config.hostname.len() > MAX_HOSTNAME {
        return Err(invalid("hostname", format!("is longer than {MAX_HOSTNAME} bytes")));
    }
    let user = user_maps(&options)?;
    if user.is_some() && host_network {
        return Err(invalid("userns_options", "a pod on the host's network cannot have a user namespace"));
    }
    Ok(Plan {
        key: Key::of(metadata),
        host_network,
        host_ipc,
        shared_pid: options.pid() == NamespaceMode::Pod,
        ports: ports(config, host_network)?,
        sysctls: sysctls(config, host_network, host_ipc, user.is_some())?,
        resolv_conf: resolv_conf(config.dns_config.as_ref())?,
        hostname: config.hostname.clone(),
        user,
    })
}

/// The namespaces asked for; POD each, where nothing is said.
pub(crate) fn namespace_options(config: &PodSandboxConfig) -> NamespaceOption {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    security.and_then(|s| s.namespace_options.clone()).unwrap_or_default()
}

fn invalid(field: &str, why: impl Into<String>) -> Error {
    Error::Invalid { field: field.to_owned(), why: why.into() }
}

fn user_maps(options: &NamespaceOption) -> Result<Option<UserMaps>, Error> {
    let Some(user) = options.userns_options.as_ref() else { return Ok(None) };
    match user.mode() {
        NamespaceMode::Node => return Ok(None),
        NamespaceMode::Pod => {}
        mode => return Err(invalid("userns_options", format!("mode {mode:?} is not one of a sandbox"))),
    }
    if user.uids.is_empty() || user.gids.is_empty() {
        return Err(invalid("userns_options", "no mapping of uids or gids"));
    }
    let lines = |list: &[k8s_cri::v1::IdMapping]| {
        list.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.length)).collect()
    };
    Ok(Some(UserMaps { uids: lines(&user.uids), gids: lines(&user.gids) }))
}

fn ports(config: &PodSandboxConfig, host_network: bool) -> Result<Vec<HostPort>, Error> {
    let mut list = Vec::new();
    for mapping in &config.port_mappings {
        let host_port = port(mapping.host_port, "host_port")?;
        let container_port = port(mapping.container_port, "container_port")?;
        // Without a port of the host there is nothing to do; on the host's network every port is the host's.
        if host_port == 0 || host_network {
            continue;
        }
        if container_port == 0 {
            return Err(invalid("port_mappings", format!("host port {host_port} leads to no port")));
        }
        let protocol = match mapping.protocol() {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let host_ip = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| invalid("port_mappings", format!("host_ip {text:?} is no address")))?,
            ),
        };
        list.push(HostPort { protocol: protocol.into(), host_ip, host_port, container_port });
    }
    Ok(list)
}

fn port(number: i32, field: &str) -> Result<u16, Error> {
    u16::try_from(number).map_err(|_| invalid("port_mappings", format!("{field} {number} is no port")))
}

fn sysctls(
    config: &PodSandboxConfig,
    host_network: bool,
    host_ipc: bool,
    user: bool,
) -> Result<Vec<(String, String)>, Error> {
    let asked = config.linux.as_ref().map(|l| l.sysctls.clone()).unwrap_or_default();
    let mut list: Vec<(String, String)> = Vec::new();
    for (name, value) in asked {
        // Both forms are in use: `net.ipv4.conf.eth0/1.forwarding` has a slash for a dot in a name.
        let name = if name.contains('.') { name } else { name.replace('/', ".") };
        let owner = namespace_of(&name)
            .ok_or_else(|| invalid("sysctls", format!("{name} does not belong to a namespace of the pod")))?;
        let host = match owner {
            Owner::Network => host_network.then_some("network"),
            Owner::Ipc => host_ipc.then_some("IPC"),
        };
        if let Some(kind) = host {
            return Err(invalid("sysctls", format!("{name} would change the host's {kind} namespace")));
        }
        list.push((name, value));
    }
    list.sort();
    if !host_network && !user {
        for (name, value) in DEFAULT_SYSCTLS {
            if !list.iter().any(|(n, _)| n == name) {
                list.push((name.into(), value.into()));
            }
        }
    }
    Ok(list)
}

#[derive(Debug, PartialEq)]
enum Owner {
    Network,
    Ipc,
}

/// The namespace that a sysctl is of. sysctl(7), namespaces(7).
fn namespace_of(name: &str) -> Option<Owner> {
    let is_plain = !name.split('.').any(|part| part.is_empty() || part == "..");
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    match name {
        _ if !is_plain || name.contains("..") || name.starts_with('/') => None,
        "kernel.sem" => Some(Owner::Ipc),
        _ if ipc.iter().any(|prefix| name.starts_with(prefix)) => Some(Owner::Ipc),
        _ if name.starts_with("net.") => Some(Owner::Network),
        _ => None,
    }
}

/// Renders a resolv.conf. An empty configuration is the host's, as with every CRI runtime.
fn resolv_conf(dns: Option<&DnsConfig>) -> Result<Option<String>, Error> {
    let Some(dns) = dns else { return Ok(None) };
    let words = dns.searches.iter().chain(&dns.options).chain(&dns.servers);
    if let Some(word) = words.clone().find(|w| w.contains(['\n', '\r', '\0'])) {
        return Err(invalid("dns_config", format!("{word:?} has a line break")));
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext, PortMapping};

    use super::*;

    fn config() -> PodSandboxConfig {
        let metadata =
            PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "d".into(), attempt: 0 };
        PodSandboxConfig { metadata: Some(metadata), ..PodSandboxConfig::default() }
    }

    fn with_sysctl(name: &str, options: NamespaceOption) -> PodSandboxConfig {
        let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = LinuxPodSandboxConfig {
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            security_context: Some(security),
            ..Default::default()
        };
        PodSandboxConfig { linux: Some(linux), ..config() }
    }

    #[test]
    fn only_sysctls_of_the_pods_namespaces_are_taken() {
        let pod = NamespaceOption::default();
        let host = NamespaceOption {
            network: NamespaceMode::Node as i32,
            ipc: NamespaceMode::Node as i32,
            ..NamespaceOption::default()
        };
        for name in ["net.core.somaxconn", "kernel.shm_rmid_forced", "kernel.sem", "fs.mqueue.msg_max"] {
            assert!(check(&with_sysctl(name, pod.clone())).is_ok(), "{name}");
            assert!(check(&with_sysctl(name, host.clone())).is_err(), "{name} of the host");
        }
        for name in
            ["kernel.panic", "vm.swappiness", "net...kernel.panic", "fs.mqueue", "", "kernel.hostname"]
        {
            assert!(check(&with_sysctl(name, pod.clone())).is_err(), "{name}");
        }
    }

    #[test]
    fn ports_are_checked() {
        let with = |host_port, container_port, host_ip: &str| {
            let mapping = PortMapping { protocol: 1, container_port, host_port, host_ip: host_ip.into() };
            check(&PodSandboxConfig { port_mappings: vec![mapping], ..config() }).map(|p| p.ports)
        };
        let port = HostPort { protocol: "udp".into(), host_ip: None, host_port: 8080, container_port: 80 };
        assert_eq!(with(8080, 80, "").expect("valid"), [port]);
        assert_eq!(with(0, 80, "").expect("no port of the host"), []);
        for (host, container, ip) in [(70000, 80, ""), (-1, 80, ""), (8080, 0, ""), (8080, 80, "x")] {
            assert!(with(host, container, ip).is_err(), "{host} {container} {ip}");
        }
    }

    #[test]
    fn resolv_conf_is_rendered_or_the_hosts() {
        let dns = |servers: &[&str], searches: &[&str], options: &[&str]| {
            let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
            let dns = DnsConfig {
                servers: strings(servers),
                searches: strings(searches),
                options: strings(options),
            };
            resolv_conf(Some(&dns))
        };
        assert_eq!(
            dns(&["10.0.0.10", "8.8.8.8"], &["a.local", "local"], &["ndots:5"]).expect("valid").as_deref(),
            Some("search a.local local\nnameserver 10.0.0.10\nnameserver 8.8.8.8\noptions ndots:5\n")
        );
        assert_eq!(dns(&[], &[], &[]).expect("valid"), None);
        assert!(dns(&["1.1.1.1\nx"], &[], &[]).is_err());
    }

    #[test]
    fn a_request_names_its_pod() {
        assert!(check(&PodSandboxConfig::default()).is_err());
        let long = PodSandboxConfig { hostname: "x".repeat(65), ..config() };
        assert!(check(&long).is_err());
        let plan = check(&config()).expect("valid");
        assert_eq!(plan.key.to_string(), "d/p (uid u, attempt 0)");
        assert!(!plan.host_network && plan.shared_pid, "POD is the default of each namespace");
    }
}
