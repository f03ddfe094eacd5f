//! The daemon's configuration: embedded defaults, a TOML file, flags; each later one wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::network::EmbeddedConfig;

/// Largest configuration file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Where the daemon keeps things and listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Images, records, writable layers: outlives a boot.
    pub root: PathBuf,
    /// Sockets, pins, intents of this boot.
    pub state: PathBuf,
    /// The gRPC socket.
    pub socket: PathBuf,
    /// Where pods' network namespaces are pinned: what Multus, Cilium and Istio mount.
    pub netns: PathBuf,
    /// Who connects pods.
    pub network: NetworkKind,
    /// Of the embedded network.
    pub embedded: EmbeddedConfig,
    /// Of CNI.
    pub cni: CniConfig,
    /// Who makes control groups.
    pub cgroup_driver: CgroupDriver,
    /// Address and port of the streaming server; port 0 lets the kernel choose.
    pub stream: std::net::SocketAddr,
    /// Certificate and key of the streaming server; without them it speaks HTTP.
    pub stream_tls: Option<StreamTls>,
    /// Further runtimes by the name that RuntimeClass gives as its handler; the empty name is `coracle` itself.
    pub runtimes: BTreeMap<String, RuntimeHandler>,
}

/// A `[runtimes.NAME]` table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeHandler {
    /// A binary with runc's command line; none is `coracle`.
    pub path: Option<PathBuf>,
}

/// The `[stream_tls]` table: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Who connects pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// The plugins below `cni.plugins`, as a kubelet's node has them.
    #[default]
    Cni,
    /// A bridge of our own: no plugin needed.
    Embedded,
}

/// Who makes control groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    #[default]
    Cgroupfs,
    Systemd,
}

/// The `[cni]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CniConfig {
    /// Where network configurations lie; the first by name counts.
    pub config: PathBuf,
    /// Where plugins lie.
    pub plugins: Vec<PathBuf>,
}

impl Default for CniConfig {
    fn default() -> Self {
        Self { config: "/etc/cni/net.d".into(), plugins: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()] }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: coracle_image_store::store::DEFAULT_ROOT.into(),
            state: "/run/coracle".into(),
            socket: "/run/coracle/coracled.sock".into(),
            netns: crate::network::netns::DIRECTORY.into(),
            network: NetworkKind::default(),
            embedded: EmbeddedConfig::default(),
            cni: CniConfig::default(),
            cgroup_driver: CgroupDriver::default(),
            stream: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            stream_tls: None,
            runtimes: BTreeMap::new(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is not what it should be; the text names line and key.
    #[error("{path}: {source}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
}

impl Config {
    /// Reads a file; what it does not name keeps its default, a key that is not known is an error.
    pub fn load(path: &Path) -> Result<Self, Error> {
        use std::io::Read;
        let fail = |source| Error::Read { path: path.into(), source };
        let mut text = String::new();
        std::fs::File::open(path).map_err(fail)?.take(MAX_FILE).read_to_string(&mut text).map_err(fail)?;
        Self::parse(&text).map_err(|source| Error::Parse { path: path.into(), source: Box::new(source) })
    }

    /// The handler of that name; the empty name is always there.
    #[must_use]
    pub fn handler(&self, name: &str) -> Option<RuntimeHandler> {
        match self.runtimes.get(name) {
            None if name.is_empty() => Some(RuntimeHandler::default()),
            found => found.cloned(),
        }
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let config = Config::parse("root = \"/srv/images\"").expect("valid");
        assert_eq!(config, Config { root: "/srv/images".into(), ..Config::default() });
    }

    #[test]
    fn handlers_are_named() {
        let config = Config::parse("[runtimes.runc]\npath = \"/usr/sbin/runc\"").expect("valid");
        assert_eq!(config.handler("runc").and_then(|h| h.path), Some("/usr/sbin/runc".into()));
        assert_eq!(config.handler(""), Some(RuntimeHandler::default()));
        assert_eq!(config.handler("kata"), None);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = Config::parse("sokcet = \"/x\"").expect_err("unknown");
        assert!(error.to_string().contains("sokcet"), "{error}");
    }
}
