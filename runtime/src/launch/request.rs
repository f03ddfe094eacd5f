//! What callers ask of `launch` and what they get.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

use crate::cgroup;
use crate::error::{ErrorKind, Kind};
use crate::init::StepError;
use crate::state::{ContainerDir, Record};

/// Where the process's standard streams come from.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The caller's own descriptors 0 to 2.
    #[default]
    Inherit,
    /// These three, for callers that make pipes.
    Fds([OwnedFd; 3]),
}

/// A container to create.
#[derive(Debug)]
pub struct CreateRequest {
    /// The container's id, already checked.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Its configuration, already validated.
    pub spec: Spec,
    /// The state directory; the record goes to `<root>/<id>`.
    pub root: PathBuf,
    /// Who manages the cgroup.
    pub cgroup_driver: cgroup::Driver,
    /// Socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// File that receives init's pid.
    pub pid_file: Option<PathBuf>,
    /// Socket that receives init's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// `MS_MOVE` and chroot instead of `pivot_root` (ramdisks).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// We are not allowed what root is allowed.
    pub rootless: bool,
    /// The caller will wait for the process, and takes its terminal.
    pub foreground: bool,
    /// The standard streams.
    pub stdio: Stdio,
}

/// A created container, waiting at its start gate.
#[derive(Debug)]
pub struct Created {
    /// Init's pid in our namespace.
    pub pid: i32,
    /// Init's pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master in foreground mode.
    pub console: Option<OwnedFd>,
}

/// The lock and the record of a container just created, for a caller that starts it at once.
#[derive(Debug)]
pub struct Held {
    /// Its directory, locked.
    pub dir: ContainerDir,
    /// Its record, as it is on disk.
    pub record: Record,
}

/// A process to run in a container.
#[derive(Debug)]
pub struct ExecRequest {
    /// The container.
    pub id: String,
    /// The state directory.
    pub root: PathBuf,
    /// The process; the caller has merged flags and `process.json`.
    pub process: Process,
    /// Sub-group below the container's, `--cgroup`; on v1 also `controller:path`.
    pub cgroup: Vec<String>,
    /// Socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// File that receives the process's pid.
    pub pid_file: Option<PathBuf>,
    /// Socket that receives the process's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// Leave the process to our parent.
    pub detach: bool,
    /// Run also in a paused container.
    pub ignore_paused: bool,
    /// We are not allowed what root is allowed.
    pub rootless: bool,
    /// The standard streams.
    pub stdio: Stdio,
}

/// A process that runs in a container.
#[derive(Debug)]
pub struct Execed {
    /// Its pid in our namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master in foreground mode.
    pub console: Option<OwnedFd>,
}

/// Why a launch failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step in the parent or in the child failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The container does not exist.
    #[error("container does not exist")]
    NoContainer,
    /// A container with this id exists.
    #[error("container with given ID already exists")]
    Exists,
    /// The container's state does not allow it.
    #[error("{0}")]
    State(String),
    /// The configuration is wrong; all problems at once.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// The child died without a word.
    #[error("container init {0}")]
    Died(String),
    /// Not in this build or on this kernel.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The cgroup could not be made.
    #[error("cgroup: {0}")]
    Cgroup(Box<dyn std::error::Error + Send + Sync>),
    /// The record could not be read or written.
    #[error("state: {0}")]
    Record(Box<dyn std::error::Error + Send + Sync>),
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] crate::fault::Injected),
    /// A hook failed.
    #[error("{0}")]
    Hook(Box<dyn std::error::Error + Send + Sync>),
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Step(step) => step.kind(),
            Self::NoContainer => ErrorKind::NotFound,
            Self::Exists | Self::State(_) => ErrorKind::Conflict,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Died(_) | Self::Cgroup(_) | Self::Record(_) | Self::Hook(_) | Self::Fault(_) => {
                ErrorKind::Kernel
            }
        }
    }
}
