//! The part of a Kubernetes Pod manifest that makes sense without Kubernetes, to the CRI's messages.
//!
//! A field that is not supported is an error and never ignored. What the kubelet adds by itself (masked paths of
//! `/proc`, the runtime's seccomp profile, log paths) is added here too.

use std::collections::HashMap;
use std::path::Path;

use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    PortMapping, Protocol, SecurityProfile,
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Manifest {
    api_version: String,
    kind: String,
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    pub name: String,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub containers: Vec<Container>,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    host_network: bool,
    #[serde(default, rename = "hostPID")]
    host_pid: bool,
    #[serde(default, rename = "hostIPC")]
    host_ipc: bool,
    #[serde(default)]
    share_process_namespace: bool,
    #[serde(default)]
    volumes: Vec<Volume>,
    /// Only `Never` is true here: nobody restarts what ends.
    #[serde(default)]
    restart_policy: Option<String>,
    #[serde(default)]
    pub runtime_class_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Container {
    pub name: String,
    pub image: String,
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    working_dir: String,
    #[serde(default)]
    env: Vec<Variable>,
    #[serde(default)]
    ports: Vec<Port>,
    #[serde(default)]
    volume_mounts: Vec<VolumeMount>,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    security_context: SecurityContext,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    tty: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Port {
    #[serde(default, rename = "name")]
    _name: String,
    container_port: u16,
    #[serde(default)]
    host_port: u16,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
    #[serde(default)]
    protocol: PortProtocol,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum PortProtocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Volume {
    name: String,
    host_path: HostPath,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostPath {
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeMount {
    name: String,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    limits: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecurityContext {
    #[serde(default)]
    privileged: bool,
    #[serde(default)]
    run_as_user: Option<i64>,
    #[serde(default)]
    run_as_group: Option<i64>,
    #[serde(default)]
    read_only_root_filesystem: bool,
}

/// Why a manifest cannot be used; the text names the field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Error {
    #[error("{0} {1:?} is not supported, only {2}")]
    Only(&'static str, String, &'static str),
    #[error("spec.containers is empty")]
    NoContainers,
    #[error("container {0}: there is no volume {1}")]
    NoVolume(String, String),
    #[error("container {0}: resources.limits.{1}: {2:?} is no quantity that is understood")]
    Quantity(String, String, String),
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// What the kubelet hides of `/proc` and `/sys` unless it is told otherwise.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Manifest {
    /// Finds what is no mistake of form.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.api_version != "v1" {
            return Err(Error::Only("apiVersion", self.api_version.clone(), "v1"));
        }
        if self.kind != "Pod" {
            return Err(Error::Only("kind", self.kind.clone(), "Pod"));
        }
        match self.spec.restart_policy.as_deref() {
            None | Some("Never") => {}
            Some(other) => return Err(Error::Only("restartPolicy", other.to_owned(), "Never")),
        }
        if self.spec.containers.is_empty() { Err(Error::NoContainers) } else { Ok(()) }
    }

    /// The sandbox, with its logs below `logs`.
    pub(super) fn sandbox(&self, logs: &Path) -> PodSandboxConfig {
        let data = &self.metadata;
        let directory = logs.join(format!("{}_{}_{}", data.namespace, data.name, data.uid));
        let hostname = if self.spec.hostname.is_empty() { &data.name } else { &self.spec.hostname };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: data.name.clone(),
                uid: data.uid.clone(),
                namespace: data.namespace.clone(),
                attempt: 0,
            }),
            hostname: if self.spec.host_network { String::new() } else { hostname.clone() },
            log_directory: directory.display().to_string(),
            port_mappings: self.spec.containers.iter().flat_map(Container::port_mappings).collect(),
            labels: data.labels.clone(),
            annotations: data.annotations.clone(),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(self.namespaces()),
                    privileged: self.spec.containers.iter().any(|one| one.security_context.privileged),
                    seccomp: Some(SecurityProfile::default()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    fn namespaces(&self) -> NamespaceOption {
        let node_or = |node: bool, other| if node { NamespaceMode::Node } else { other } as i32;
        let own = match self.spec.share_process_namespace {
            true => NamespaceMode::Pod,
            false => NamespaceMode::Container,
        };
        NamespaceOption {
            network: node_or(self.spec.host_network, NamespaceMode::Pod),
            pid: node_or(self.spec.host_pid, own),
            ipc: node_or(self.spec.host_ipc, NamespaceMode::Pod),
            ..NamespaceOption::default()
        }
    }

    /// A container of the pod, made from the image that a pull answered.
    pub(super) fn container(&self, of: &Container, image: &str) -> Result<ContainerConfig, Error> {
        let variable = |one: &Variable| KeyValue { key: one.name.clone(), value: one.value.clone() };
        Ok(ContainerConfig {
            metadata: Some(ContainerMetadata { name: of.name.clone(), attempt: 0 }),
            image: Some(ImageSpec {
                image: image.to_owned(),
                user_specified_image: of.image.clone(),
                ..ImageSpec::default()
            }),
            command: of.command.clone(),
            args: of.args.clone(),
            working_dir: of.working_dir.clone(),
            envs: of.env.iter().map(variable).collect(),
            mounts: self.mounts(of)?,
            log_path: format!("{}/0.log", of.name),
            stdin: of.stdin,
            tty: of.tty,
            linux: Some(LinuxContainerConfig {
                resources: Some(of.resources.plan(&of.name)?),
                security_context: Some(of.security_context.plan(self.namespaces())),
            }),
            ..ContainerConfig::default()
        })
    }

    fn mounts(&self, of: &Container) -> Result<Vec<Mount>, Error> {
        let mount = |wanted: &VolumeMount| {
            let volume = self.spec.volumes.iter().find(|volume| volume.name == wanted.name);
            let volume = volume.ok_or_else(|| Error::NoVolume(of.name.clone(), wanted.name.clone()))?;
            Ok(Mount {
                container_path: wanted.mount_path.clone(),
                host_path: volume.host_path.path.clone(),
                readonly: wanted.read_only,
                ..Mount::default()
            })
        };
        of.volume_mounts.iter().map(mount).collect()
    }
}

impl Container {
    fn port_mappings(&self) -> impl Iterator<Item = PortMapping> {
        self.ports.iter().filter(|port| port.host_port != 0).map(|port| PortMapping {
            protocol: match port.protocol {
                PortProtocol::Tcp => Protocol::Tcp,
                PortProtocol::Udp => Protocol::Udp,
                PortProtocol::Sctp => Protocol::Sctp,
            } as i32,
            container_port: port.container_port.into(),
            host_port: port.host_port.into(),
            host_ip: port.host_ip.clone(),
        })
    }
}

impl Resources {
    fn plan(&self, container: &str) -> Result<LinuxContainerResources, Error> {
        let mut plan = LinuxContainerResources::default();
        for (name, text) in &self.limits {
            let wrong = || Error::Quantity(container.to_owned(), name.clone(), text.clone());
            match name.as_str() {
                "cpu" => {
                    let thousandths = cpu(text).ok_or_else(wrong)?;
                    plan.cpu_period = 100_000;
                    plan.cpu_quota = thousandths * 100;
                    plan.cpu_shares = thousandths * 1024 / 1000;
                }
                "memory" => plan.memory_limit_in_bytes = bytes(text).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            }
        }
        Ok(plan)
    }
}

/// Thousandths of a core: `500m`, `2`, `0.5`.
fn cpu(text: &str) -> Option<i64> {
    if let Some(thousandths) = text.strip_suffix('m') {
        return thousandths.parse().ok().filter(|count| *count > 0);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let thousandths = whole.parse::<i64>().ok()?.checked_mul(1000)? + digits.parse::<i64>().ok()?;
    (thousandths > 0).then_some(thousandths)
}

/// `64Mi`, `1G`, `1048576`.
fn bytes(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(factor).filter(|count| *count > 0)
}

impl SecurityContext {
    fn plan(&self, namespaces: NamespaceOption) -> LinuxContainerSecurityContext {
        let paths = |list: &[&str]| match self.privileged {
            true => Vec::new(),
            false => list.iter().map(|path| (*path).to_owned()).collect(),
        };
        LinuxContainerSecurityContext {
            privileged: self.privileged,
            namespace_options: Some(namespaces),
            run_as_user: self.run_as_user.map(|value| Int64Value { value }),
            run_as_group: self.run_as_group.map(|value| Int64Value { value }),
            readonly_rootfs: self.read_only_root_filesystem,
            masked_paths: paths(&MASKED),
            readonly_paths: paths(&READ_ONLY),
            seccomp: (!self.privileged).then(SecurityProfile::default),
            ..LinuxContainerSecurityContext::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "uid": "u"},
        "spec": {"containers": [{"name": "nginx", "image": "nginx:alpine",
            "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}]}],
          "volumes": [{"name": "data", "hostPath": {"path": "/srv"}}]}}"#;

    fn manifest(text: &str) -> Manifest {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_pod_becomes_messages() {
        let pod = manifest(POD);
        assert_eq!(pod.check(), Ok(()));
        let sandbox = pod.sandbox(Path::new("/var/log/pods"));
        assert_eq!(sandbox.log_directory, "/var/log/pods/default_web_u");
        let ports: Vec<_> = sandbox.port_mappings.iter().map(|p| (p.host_port, p.container_port)).collect();
        assert_eq!(ports, [(8080, 80)]);
        let container = pod.container(&pod.spec.containers[0], "sha256:1").unwrap();
        assert_eq!(container.mounts[0].host_path, "/srv");
        let resources = container.linux.unwrap().resources.unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_shares), (50_000, 512));
        assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let unknown = POD.replace("\"volumes\"", "\"initContainers\"");
        assert!(
            serde_json::from_str::<Manifest>(&unknown).unwrap_err().to_string().contains("initContainers")
        );
        assert!(manifest(&POD.replace("\"Pod\"", "\"Deployment\"")).check().is_err());
        let pod =
            manifest(&POD.replace("\"name\": \"data\", \"mountPath\"", "\"name\": \"x\", \"mountPath\""));
        let error = Error::NoVolume("nginx".into(), "x".into());
        assert_eq!(pod.container(&pod.spec.containers[0], "").unwrap_err(), error);
    }

    #[test]
    fn quantities() {
        assert_eq!(
            [cpu("2"), cpu("0.5"), cpu("250m"), cpu("x"), cpu("0")],
            [Some(2000), Some(500), Some(250), None, None]
        );
        assert_eq!([bytes("1Gi"), bytes("5"), bytes("5X"), bytes("")], [Some(1 << 30), Some(5), None, None]);
    }
}
