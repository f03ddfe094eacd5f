//! What stands in the way of an exec, an attach or a forwarded port.

use std::io;
use std::time::Duration;

use coracle_monitor::client;
use tonic::Status;

use crate::record::{ContainerState, SandboxState};

/// Why a process, its streams or a pod's ports cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("container {0:?}: not found")]
    NoContainer(String),
    #[error("pod sandbox {0:?}: not found")]
    NoSandbox(String),
    #[error("container {id}: is in {} state", state_name(*.state))]
    NotRunning { id: String, state: ContainerState },
    #[error("pod sandbox {id}: is not ready ({state:?})")]
    NotReady { id: String, state: SandboxState },
    #[error("{0}")]
    Invalid(&'static str),
    #[error("exec in container {id}: {source}")]
    Monitor { id: String, source: client::Error },
    #[error("exec in container {id}: timeout {limit:?} exceeded: context deadline exceeded")]
    Timeout { id: String, limit: Duration },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("streaming: {0} requests wait for their clients")]
    Exhausted(usize),
}

impl Error {
    pub(super) const fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NoContainer(_) | Error::NoSandbox(_) => Self::not_found(text),
            Error::NotRunning { .. } | Error::NotReady { .. } => Self::failed_precondition(text),
            Error::Invalid(_) => Self::invalid_argument(text),
            Error::Timeout { .. } => Self::deadline_exceeded(text),
            Error::Exhausted(_) => Self::resource_exhausted(text),
            Error::Monitor { source: client::Error::Unreachable { .. }, .. } => Self::unavailable(text),
            Error::Monitor { .. } | Error::Io { .. } => Self::internal(text),
        }
    }
}

const fn state_name(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Creating | ContainerState::Created => "CONTAINER_CREATED",
        ContainerState::Running => "CONTAINER_RUNNING",
        ContainerState::Exited => "CONTAINER_EXITED",
    }
}
