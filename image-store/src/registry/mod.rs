//! Registries: where a name leads, how to authenticate, how to fetch.
//!
//! `hosts` turns a name and the configuration into endpoints in order of preference (mirrors, then the origin; pure but
//! for reading files), `auth` answers challenges, `login` finds credentials, `client` asks and checks, `transport` is
//! HTTP. The grammar of the answers is hostile input: every body has a limit, every digest is checked.

pub mod auth;
pub mod client;
pub mod error;
pub mod hosts;
pub mod login;
pub mod retry;
pub mod transport;

use std::path::PathBuf;
use std::time::Duration;

pub use client::Registry;
pub use error::Error;

/// How registries are reached: the files to read and the limits. Read once, by whoever makes a `Puller`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directories of `<host>/hosts.toml`, the first that has one wins.
    pub hosts_dirs: Vec<PathBuf>,
    /// A `registries.conf` of the containers project.
    pub registries_conf: Option<PathBuf>,
    /// Docker-style `config.json` files, the first that knows the registry wins.
    pub login_files: Vec<PathBuf>,
    /// Registries (`host[:port]`) to reach over plain HTTP. Loopback addresses are without being named.
    pub insecure: Vec<String>,
    /// For `http://`, for `https://`, and the hosts to reach without.
    pub proxies: Proxies,
    /// A connection that is not made in this time has failed.
    pub connect_timeout: Duration,
    /// A transfer that brings nothing for this long has failed.
    pub stall_timeout: Duration,
    /// Attempts without any progress before an error is final.
    pub attempts: u32,
    /// Layers of one image fetched at the same time.
    pub parallel_layers: usize,
    /// Ranges of one blob fetched at the same time once it proves slow; 1 for never.
    pub parallel_ranges: usize,
    /// A blob is slow when its connection was waited for this long.
    pub ranges_after: Duration,
}

/// Proxies by the scheme of the target.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For plain HTTP.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// Comma-separated hosts that are reached directly.
    pub except: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts_dirs: Vec::new(),
            registries_conf: None,
            login_files: Vec::new(),
            insecure: Vec::new(),
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(45),
            attempts: 5,
            parallel_layers: 4,
            parallel_ranges: 4,
            ranges_after: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// The usual files, and the environment's proxies and file names.
    #[must_use]
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let either = |upper: &str, lower: &str| var(lower).or_else(|| var(upper));
        let home = var("HOME").map(PathBuf::from);
        let docker = var("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let login_files = [
            var("REGISTRY_AUTH_FILE").map(PathBuf::from),
            var("XDG_RUNTIME_DIR").map(|run| PathBuf::from(run).join("containers/auth.json")),
            home.as_ref().map(|home| home.join(".config/containers/auth.json")),
            docker.map(|docker| docker.join("config.json")),
            Some("/etc/coracle/registry-auth.json".into()),
        ];
        Self {
            hosts_dirs: ["/etc/coracle/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"]
                .map(PathBuf::from)
                .into(),
            registries_conf: Some(
                var("CONTAINERS_REGISTRIES_CONF")
                    .unwrap_or_else(|| "/etc/containers/registries.conf".into())
                    .into(),
            ),
            login_files: login_files.into_iter().flatten().collect(),
            proxies: Proxies {
                http: var("http_proxy"),
                https: either("HTTPS_PROXY", "https_proxy"),
                except: either("NO_PROXY", "no_proxy"),
            },
            ..Self::default()
        }
    }
}
