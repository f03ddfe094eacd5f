//! The objects themselves.

use std::path::PathBuf;

use coracle_runtime::state::Identity;
use k8s_cri::v1::{ContainerConfig, PodSandboxConfig};
use serde::{Deserialize, Serialize};

use super::Record;
use crate::network::{Attachment, HostPort};
use crate::oci;

/// How far a sandbox is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Under way: in no list. Found after a crash, it is undone.
    #[default]
    Creating,
    Ready,
    /// Stopped, or its monitor or its boot is gone.
    NotReady,
}

/// A pod sandbox.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sandbox {
    /// 64 hex digits.
    pub id: String,
    /// Boot in which it was made: pins and processes of another are gone.
    pub boot: String,
    pub state: SandboxState,
    /// As it was asked for.
    pub config: PodSandboxConfig,
    pub runtime_handler: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Pinned namespace, absent on the host's network. Recorded before it is made.
    pub netns: Option<PathBuf>,
    pub ports: Vec<HostPort>,
    /// What the network answered; recorded empty before it is asked.
    pub attachment: Option<Attachment>,
    /// Whether the network has been given back.
    pub detached: bool,
    /// What its containers join and mount.
    pub files: oci::SandboxFiles,
    pub ipcns: Option<PathBuf>,
    pub utsns: Option<PathBuf>,
    pub pidns: Option<PathBuf>,
    /// Owns the other namespaces, where the pod has a user namespace.
    pub userns: Option<PathBuf>,
    /// First process of a shared PID namespace; 0 where there is none.
    pub init_pid: i32,
    pub init: Option<Identity>,
    /// In the form of the runtime's `cgroupsPath`, up to the container's own part.
    pub cgroup_parent: String,
    /// We have made that group, with the pod's limits, and remove it.
    pub cgroup_made: bool,
    pub monitor_pid: i32,
    /// Who it is beyond its number.
    pub monitor: Option<Identity>,
    /// Why it is not ready, where that is not a stop.
    pub message: String,
}

impl Record for Sandbox {
    const FILE: &'static str = "sandbox.json";
    fn id(&self) -> &str {
        &self.id
    }
}

/// How far a container is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Under way: in no list. Found after a crash, it is undone.
    #[default]
    Creating,
    Created,
    Running,
    Exited,
}

/// A container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    pub sandbox: String,
    pub boot: String,
    pub state: ContainerState,
    /// As it was asked for.
    pub config: ContainerConfig,
    /// `repo@digest` of the image, or its id.
    pub image_ref: String,
    /// Digest of the image's configuration.
    pub image_id: String,
    pub user: oci::User,
    /// Absolute; empty writes no log.
    pub log_path: PathBuf,
    /// A number or `SIG...`, from the request or the image; SIGTERM where neither has one.
    pub stop_signal: String,
    pub pid: i32,
    /// Nanoseconds since the epoch, 0 before it.
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, `MonitorLost`.
    pub reason: String,
    pub message: String,
}

impl Record for Container {
    const FILE: &'static str = "container.json";
    fn id(&self) -> &str {
        &self.id
    }
}
