//! What the services share: configuration, records, images, the network, the stream of events.

use std::path::PathBuf;
use std::time::Duration;

use coracle_image_store::{Puller, Store};
use k8s_cri::v1::ContainerEventResponse;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, NetworkKind};
use crate::containers;
use crate::network::{self, Network};
use crate::pods::Joins;
use crate::record::{self, Records};
use crate::stats::Stats;
use crate::streaming::Streaming;

/// Events that a slow reader may lag behind before it loses some.
const EVENTS: usize = 1024;

/// How long one CNI plugin may take.
const CNI_DEADLINE: Duration = Duration::from_secs(60);

/// The daemon. One a process, shared by every request.
#[derive(Debug)]
pub struct Daemon {
    pub config: Config,
    pub programs: Programs,
    pub store: Store,
    pub puller: Puller,
    pub records: Records,
    pub network: Network,
    pub streaming: Streaming,
    pub stats: Stats,
    /// RunPodSandbox calls under way.
    pub(crate) joins: Joins,
    /// CreateContainer calls under way.
    pub(crate) creating: containers::Creating,
    pub events: broadcast::Sender<ContainerEventResponse>,
    /// Cancelled when the daemon is to end.
    pub stopping: CancellationToken,
    /// Of the running kernel: what another boot left has no processes.
    pub boot: String,
}

/// The programs of ours that the daemon runs.
#[derive(Debug, Clone)]
pub struct Programs {
    pub monitor: PathBuf,
    pub runtime: PathBuf,
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of ours.
    #[error("{0} is neither beside coracled nor on the PATH")]
    Program(&'static str),
    /// The records.
    #[error(transparent)]
    Records(#[from] record::Error),
    /// The network.
    #[error("network: {0}")]
    Network(#[from] network::Error),
    /// `/proc/sys/kernel/random/boot_id`.
    #[error("boot id: {0}")]
    Boot(std::io::Error),
}

impl Daemon {
    /// Opens everything that does not change the host; blocking.
    pub fn open(config: Config, puller: Puller) -> Result<Self, Error> {
        let programs = Programs { monitor: find("coracle-monitor")?, runtime: find("coracle")? };
        let network = match config.network {
            NetworkKind::Embedded => {
                Network::Embedded(network::Embedded::open(&config.embedded, &config.state)?)
            }
            NetworkKind::Cni => Network::Cni(network::cni::Cni {
                conf_dir: config.cni.config.clone(),
                bin_dirs: config.cni.plugins.clone(),
                deadline: CNI_DEADLINE,
            }),
        };
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(Error::Boot)?;
        Ok(Self {
            records: Records::open(&config.root)?,
            programs,
            joins: Joins::default(),
            creating: containers::Creating::default(),
            streaming: Streaming::default(),
            stats: Stats::default(),
            store: puller.store().clone(),
            puller,
            network,
            events: broadcast::Sender::new(EVENTS),
            stopping: CancellationToken::new(),
            boot: boot.trim().to_owned(),
            config,
        })
    }

    /// The run directory of a sandbox: monitor, pins, files of this boot.
    #[must_use]
    pub fn sandbox_directory(&self, id: &str) -> PathBuf {
        self.config.state.join("pods").join(id)
    }

    /// The directory of a sandbox's monitor (socket, exits).
    #[must_use]
    pub fn monitor_directory(&self, sandbox: &str) -> PathBuf {
        self.sandbox_directory(sandbox).join("monitor")
    }

    /// A client of a sandbox's monitor; its calls block, make them off the async threads.
    #[must_use]
    pub fn monitor(&self, sandbox: &str) -> coracle_monitor::client::Client {
        coracle_monitor::client::Client::new(&self.monitor_directory(sandbox))
    }

    /// The run directory of a container: `bundle/config.json`, `bundle/rootfs`.
    #[must_use]
    pub fn container_directory(&self, id: &str) -> PathBuf {
        self.config.state.join("containers").join(id)
    }

    /// The runtime's state directory.
    #[must_use]
    pub fn runtime_root(&self) -> PathBuf {
        self.config.state.join("runtime")
    }
}

/// Beside this program, else on the PATH.
fn find(name: &'static str) -> Result<PathBuf, Error> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join(name));
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file()).ok_or(Error::Program(name))
}
