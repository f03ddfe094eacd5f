//! Why a sandbox could not be made, ended or shown.

use std::io;
use std::path::PathBuf;

use tonic::Status;

use crate::{network, record};

/// Each prints as object, action and cause; the code that a client sees is decided in one place below.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A field of the request.
    #[error("{field}: {why}")]
    Invalid { field: String, why: String },
    /// The pod has a sandbox already.
    #[error("pod {key} has the sandbox {id}, which is {state}")]
    Exists { key: String, id: String, state: &'static str },
    /// A value that the kernel refused.
    #[error("sysctl {name} = {value:?}: {source}")]
    Sysctl { name: String, value: String, source: io::Error },
    /// A file, directory or mount.
    #[error("{action} {path}: {source}")]
    Path { action: &'static str, path: PathBuf, source: io::Error },
    /// The pod's namespaces.
    #[error("{action} the pod's namespaces: {source}")]
    Namespaces { action: &'static str, source: io::Error },
    /// The pod's network.
    #[error("network: {0}")]
    Network(#[from] network::Error),
    /// A pod whose network came to nothing.
    #[error("network: no address was assigned")]
    NoAddress,
    /// The records.
    #[error("record: {0}")]
    Record(#[from] record::Error),
    /// The pod's cgroup.
    #[error("cgroup {path}: {source}")]
    Cgroup { path: String, source: coracle_runtime::cgroup::Error },
    /// The pod's monitor.
    #[error("{action} the monitor: {why}")]
    Monitor { action: &'static str, why: String },
    /// A test asked for it.
    #[error("{0}")]
    Injected(#[from] coracle_runtime::fault::Injected),
    /// What failed while something was taken apart; every step was tried.
    #[error("{}", join(.0))]
    Leftovers(Vec<(&'static str, Error)>),
    /// A failure, and what could not be undone after it.
    #[error("{failure}; undoing it: {}", join(.leftovers))]
    Undo { failure: Box<Error>, leftovers: Vec<(&'static str, Error)> },
    /// Work that was handed to another thread came to nothing.
    #[error("a thread of the daemon ended: {0}")]
    Thread(String),
}

fn join(list: &[(&'static str, Error)]) -> String {
    let texts: Vec<String> = list.iter().map(|(step, error)| format!("{step}: {error}")).collect();
    texts.join("; ")
}

impl Error {
    fn code(&self) -> tonic::Code {
        match self {
            Self::Invalid { .. } => tonic::Code::InvalidArgument,
            Self::Sysctl { source, .. }
                if source.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32) =>
            {
                tonic::Code::InvalidArgument
            }
            Self::Exists { .. } => tonic::Code::AlreadyExists,
            Self::Network(network::Error::Exhausted { .. }) => tonic::Code::ResourceExhausted,
            Self::Monitor { .. } => tonic::Code::Unavailable,
            Self::Undo { failure, .. } => failure.code(),
            Self::Sysctl { .. }
            | Self::Path { .. }
            | Self::Namespaces { .. }
            | Self::Network(_)
            | Self::NoAddress
            | Self::Record(_)
            | Self::Cgroup { .. }
            | Self::Injected(_)
            | Self::Leftovers(_)
            | Self::Thread(_) => tonic::Code::Internal,
        }
    }

    /// As a client sees it, on what.
    pub(crate) fn on(&self, action: &str, id: &str) -> Status {
        Status::new(self.code(), format!("{action} {id}: {self}"))
    }
}

/// Runs what blocks away from the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::Thread(e.to_string())))
}
