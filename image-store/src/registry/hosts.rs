//! Where a repository can be fetched from: mirrors in order, then the origin.
//!
//! Both configurations in use are read: containerd's `<dir>/<host>/hosts.toml` (which wins where there is one), and the
//! containers project's `registries.conf`. Without either: HTTPS, or plain HTTP for loopback and hosts named insecure.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::transport::Tls;
use super::{Config, Error};
use crate::Reference;
use crate::store::file;

const FILE_LIMIT: u64 = 1 << 20;

/// One place to fetch a repository from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host[:port][/path]/v2`, without a slash at the end.
    pub base: String,
    /// The repository there.
    pub repository: String,
    /// `host[:port]`, for finding credentials.
    pub host: String,
    /// The origin's name, told to a mirror that serves several (`?ns=`).
    pub namespace: Option<String>,
    /// How TLS is done.
    pub tls: Tls,
    /// Headers of the configuration.
    pub headers: Vec<(String, String)>,
    /// Whether this is the registry that the name says, to which the caller's credentials belong.
    pub origin: bool,
    /// Whether tags may be asked here; else only digests.
    pub resolves: bool,
}

/// The endpoints of a reference, in order of preference.
pub fn endpoints(config: &Config, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
    let registry = reference.registry();
    if let Some((path, text)) = hosts_file(&config.hosts_dirs, registry)? {
        return hosts_toml(config, reference, &path, &text);
    }
    if let Some(path) = &config.registries_conf
        && let Some(text) = read(path)?
    {
        return registries_conf(config, reference, path, &text);
    }
    Ok(vec![origin(config, reference)])
}

fn origin(config: &Config, reference: &Reference) -> Endpoint {
    // docker.io is a name; the registry behind it has another.
    let host = match reference.registry() {
        "docker.io" => "registry-1.docker.io",
        other => other,
    };
    let scheme = if is_plain(config, host) { "http" } else { "https" };
    Endpoint {
        base: format!("{scheme}://{host}/v2"),
        repository: reference.repository().to_owned(),
        host: reference.registry().to_owned(),
        namespace: None,
        tls: Tls::default(),
        headers: Vec::new(),
        origin: true,
        resolves: true,
    }
}

fn is_plain(config: &Config, host: &str) -> bool {
    if config.insecure.iter().any(|insecure| insecure == host) {
        return true;
    }
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let loopback = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    (loopback || name == "localhost") && !host.ends_with(":443")
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    let wrong = |what: String| Error::Config { path: path.to_owned(), what };
    match file::read_bounded(path, FILE_LIMIT) {
        Ok(content) => String::from_utf8(content).map(Some).map_err(|error| wrong(error.to_string())),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(wrong(error.to_string())),
    }
}

// host_port_ is how containerd writes a directory for a host with a port where `:` is not allowed.
fn hosts_file(dirs: &[PathBuf], registry: &str) -> Result<Option<(PathBuf, String)>, Error> {
    let escaped = registry.split_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = [escaped, Some(registry.to_owned()), Some("_default".to_owned())];
    for dir in dirs {
        for name in names.iter().flatten() {
            let path = dir.join(name).join("hosts.toml");
            if let Some(text) = read(&path)? {
                return Ok(Some((path, text)));
            }
        }
    }
    Ok(None)
}

#[derive(Deserialize)]
struct HostsFile {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    root: HostEntry,
}

#[derive(Deserialize, Default)]
struct HostEntry {
    capabilities: Option<Vec<String>>,
    ca: Option<toml::Value>,
    client: Option<toml::Value>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: toml::Table,
}

fn hosts_toml(
    config: &Config,
    reference: &Reference,
    path: &Path,
    text: &str,
) -> Result<Vec<Endpoint>, Error> {
    let wrong = |what: String| Error::Config { path: path.to_owned(), what };
    let parsed: HostsFile = toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
    let mut hosts = Vec::new();
    for (url, value) in &parsed.host {
        let entry: HostEntry =
            value.clone().try_into().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
        // The order of the file is the order of preference, which a map does not keep.
        let position =
            text.find(&format!("\"{url}\"")).or_else(|| text.find(url.as_str())).unwrap_or(usize::MAX);
        hosts.push((position, url, entry));
    }
    hosts.sort_by_key(|(position, _, _)| *position);
    let directory = path.parent().unwrap_or(path);
    let mut endpoints = Vec::new();
    for (_, url, entry) in &hosts {
        let mut endpoint = described(config, reference, url, entry, directory)
            .ok_or_else(|| wrong(format!("{url:?} is no address")))?;
        endpoint.namespace = Some(reference.registry().to_owned());
        let can = |what: &str| entry.capabilities.as_ref().is_none_or(|all| all.iter().any(|c| c == what));
        endpoint.resolves = can("resolve");
        if can("pull") {
            endpoints.push(endpoint);
        }
    }
    let last = match &parsed.server {
        Some(server) => described(config, reference, server, &parsed.root, directory)
            .ok_or_else(|| wrong(format!("server {server:?} is no address")))?,
        None => origin(config, reference),
    };
    endpoints.push(Endpoint { origin: true, host: reference.registry().to_owned(), ..last });
    Ok(endpoints)
}

fn described(
    config: &Config,
    reference: &Reference,
    url: &str,
    entry: &HostEntry,
    directory: &Path,
) -> Option<Endpoint> {
    let with_scheme = if url.contains("://") {
        url.to_owned()
    } else {
        format!("{}://{url}", if is_plain(config, url) { "http" } else { "https" })
    };
    let parsed = reqwest::Url::parse(&with_scheme).ok().filter(|u| matches!(u.scheme(), "http" | "https"))?;
    let host = parsed.port().map_or_else(
        || parsed.host_str().unwrap_or_default().to_owned(),
        |port| format!("{}:{port}", parsed.host_str().unwrap_or_default()),
    );
    let trimmed = with_scheme.trim_end_matches('/');
    let base = if entry.override_path || trimmed.ends_with("/v2") {
        trimmed.to_owned()
    } else {
        format!("{trimmed}/v2")
    };
    let header = |(name, value): (&String, &toml::Value)| match value {
        toml::Value::String(text) => vec![(name.clone(), text.clone())],
        toml::Value::Array(all) => {
            all.iter().filter_map(|v| Some((name.clone(), v.as_str()?.to_owned()))).collect()
        }
        _ => Vec::new(),
    };
    Some(Endpoint {
        base,
        repository: reference.repository().to_owned(),
        host,
        namespace: None,
        tls: Tls {
            ca: paths(entry.ca.as_ref(), directory),
            client: pairs(entry.client.as_ref(), directory),
            skip_verify: entry.skip_verify,
        },
        headers: entry.header.iter().flat_map(header).collect(),
        origin: false,
        resolves: true,
    })
}

fn paths(value: Option<&toml::Value>, directory: &Path) -> Vec<PathBuf> {
    match value {
        Some(toml::Value::String(path)) => vec![directory.join(path)],
        Some(toml::Value::Array(all)) => {
            all.iter().filter_map(|v| Some(directory.join(v.as_str()?))).collect()
        }
        _ => Vec::new(),
    }
}

// "pair.pem", ["a.pem", …] or [["cert.pem", "key.pem"], …]
fn pairs(value: Option<&toml::Value>, directory: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let one = |value: &toml::Value| match value {
        toml::Value::String(path) => Some((directory.join(path), None)),
        toml::Value::Array(pair) => {
            let key = pair.get(1).and_then(toml::Value::as_str).filter(|key| !key.is_empty());
            Some((directory.join(pair.first()?.as_str()?), key.map(|key| directory.join(key))))
        }
        _ => None,
    };
    match value {
        Some(toml::Value::Array(all)) => all.iter().filter_map(one).collect(),
        Some(single) => one(single).into_iter().collect(),
        None => Vec::new(),
    }
}

#[derive(Deserialize)]
struct RegistriesFile {
    #[serde(default)]
    registry: Vec<RegistryEntry>,
}

#[derive(Deserialize)]
struct RegistryEntry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default, rename = "mirror-by-digest-only")]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize)]
struct MirrorEntry {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(rename = "pull-from-mirror")]
    pull_from_mirror: Option<String>,
}

fn registries_conf(
    config: &Config,
    reference: &Reference,
    path: &Path,
    text: &str,
) -> Result<Vec<Endpoint>, Error> {
    let wrong = |what: String| Error::Config { path: path.to_owned(), what };
    let parsed: RegistriesFile = toml::from_str(text).map_err(|error| wrong(error.message().to_owned()))?;
    let name = reference.name();
    let matched = parsed
        .registry
        .iter()
        .filter_map(|entry| {
            Some((matched_prefix(entry.prefix.as_deref().or(entry.location.as_deref())?, &name)?, entry))
        })
        .max_by_key(|(length, _)| *length);
    let Some((length, entry)) = matched else { return Ok(vec![origin(config, reference)]) };
    if entry.blocked {
        return Err(Error::Blocked { registry: reference.registry().to_owned(), path: path.to_owned() });
    }
    let rest = &name[length..];
    let mut endpoints = Vec::new();
    for mirror in &entry.mirror {
        let digest_only =
            entry.mirror_by_digest_only || mirror.pull_from_mirror.as_deref() == Some("digest-only");
        let (tag, digest) = (reference.digest().is_none(), reference.digest().is_some());
        if (digest_only && tag) || (mirror.pull_from_mirror.as_deref() == Some("tag-only") && digest) {
            continue;
        }
        endpoints.push(at_location(config, &format!("{}{rest}", mirror.location), mirror.insecure));
    }
    let last = match &entry.location {
        Some(location) => at_location(config, &format!("{location}{rest}"), entry.insecure),
        None => Endpoint {
            tls: Tls { skip_verify: entry.insecure, ..Tls::default() },
            ..origin(config, reference)
        },
    };
    endpoints.push(Endpoint { origin: true, ..last });
    Ok(endpoints)
}

// The length of the matched part of the name. `*.example.com` matches every host below example.com.
fn matched_prefix(prefix: &str, name: &str) -> Option<usize> {
    if let Some(suffix) = prefix.strip_prefix('*') {
        let host = name.split('/').next()?;
        return host.ends_with(suffix).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

// `host[:port]/path`: the path is part of the repository. `insecure` there means that TLS is not verified, and plain HTTP
// where the host is a loopback address.
fn at_location(config: &Config, location: &str, insecure: bool) -> Endpoint {
    let (host, repository) = location.split_once('/').unwrap_or((location, ""));
    let scheme = if is_plain(config, host) { "http" } else { "https" };
    let address = if host == "docker.io" { "registry-1.docker.io" } else { host };
    Endpoint {
        base: format!("{scheme}://{address}/v2"),
        repository: repository.to_owned(),
        host: host.to_owned(),
        namespace: None,
        tls: Tls { skip_verify: insecure && scheme == "https", ..Tls::default() },
        headers: Vec::new(),
        origin: false,
        resolves: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(|e| format!("{}/{}", e.base, e.repository)).collect()
    }

    #[test]
    fn without_files_the_name_says_it() {
        let config = Config { insecure: vec!["reg.lan:5000".into()], ..Config::default() };
        for (name, base) in [
            ("nginx", "https://registry-1.docker.io/v2/library/nginx"),
            ("localhost:5000/x", "http://localhost:5000/v2/x"),
            ("127.0.0.1:80/x", "http://127.0.0.1:80/v2/x"),
            ("reg.lan:5000/x", "http://reg.lan:5000/v2/x"),
            ("quay.io/a/b", "https://quay.io/v2/a/b"),
        ] {
            assert_eq!(bases(&endpoints(&config, &name.parse().unwrap()).unwrap()), [base], "{name}");
        }
    }

    #[test]
    fn hosts_toml_keeps_its_order() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.mirror"]
              capabilities = ["pull", "resolve"]
              ca = ["a.pem", "/b.pem"]
              [host."https://z.mirror".header]
                x-team = "blue"
            [host."http://a.mirror/proxy/v2"]
              capabilities = ["pull"]
              override_path = true
            [host."https://push.only"]
              capabilities = ["push"]
        "#;
        let found =
            hosts_toml(&Config::default(), &"nginx".parse().unwrap(), Path::new("/d/hosts.toml"), text)
                .unwrap();
        assert_eq!(
            bases(&found),
            [
                "https://z.mirror/v2/library/nginx",
                "http://a.mirror/proxy/v2/library/nginx",
                "https://registry-1.docker.io/v2/library/nginx"
            ]
        );
        assert_eq!(found[0].tls.ca, [PathBuf::from("/d/a.pem"), "/b.pem".into()]);
        assert_eq!(found[0].headers, [("x-team".to_owned(), "blue".to_owned())]);
        assert_eq!(found[0].namespace.as_deref(), Some("docker.io"));
        assert!(found[0].resolves && !found[1].resolves && found[2].origin);
    }

    #[test]
    fn registries_conf_rewrites_prefixes() {
        let text = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            prefix = "example.com/foo"
            location = "internal.example.net/bar"
            [[registry.mirror]]
            location = "localhost:5000/m"
            [[registry]]
            prefix = "*.bad.org"
            blocked = true
        "#;
        let of =
            |name: &str| registries_conf(&Config::default(), &name.parse().unwrap(), Path::new("/r"), text);
        assert_eq!(
            bases(&of("example.com/foo/x").unwrap()),
            ["http://localhost:5000/v2/m/x", "https://internal.example.net/v2/bar/x"]
        );
        assert_eq!(bases(&of("example.com/food/x").unwrap()), ["https://example.com/v2/food/x"]);
        assert!(matches!(of("a.bad.org/x"), Err(Error::Blocked { .. })));
    }
}
