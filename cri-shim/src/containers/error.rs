//! What can go wrong with a container.

use std::path::{Path, PathBuf};

use coracle_image_store::error::chain;
use coracle_image_store::{bundle, fault, layer, mount, store};
use tonic::Status;

use crate::oci;
use crate::record::{self, ContainerState};
use crate::service::status_of;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("container {id}: not found")]
    NoContainer { id: String },
    #[error("sandbox {id}: not found")]
    NoSandbox { id: String },
    #[error("sandbox {id} is not ready: {action} needs a sandbox that runs")]
    NotReady { id: String, action: &'static str },
    #[error("container {id} is {state:?}: {action} needs one that is {needs}")]
    State { id: String, state: ContainerState, action: &'static str, needs: &'static str },
    #[error(
        "container {name} (attempt {attempt}) of sandbox {sandbox} exists as {id} and is {state:?}: remove it first"
    )]
    Exists { name: String, attempt: u32, sandbox: String, id: String, state: ContainerState },
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: String },
    #[error("this host has no {what}")]
    Unsupported { what: String },
    #[error(transparent)]
    Oci(#[from] oci::Invalid),
    #[error("monitor of sandbox {sandbox}: {source}")]
    Monitor { sandbox: String, source: coracle_monitor::client::Error },
    #[error("{runtime} {command}: {message}")]
    Runtime { runtime: String, command: String, message: String },
    /// Nothing that lives may be answered as stopped: its volumes would be detached under it.
    #[error("container {id} cannot be ended: {processes}")]
    Alive { id: String, processes: String },
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error("{action} {path}: {source}")]
    Path { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    #[error(transparent)]
    Layer(#[from] layer::Error),
    #[error(transparent)]
    Mount(#[from] mount::Error),
    #[error(transparent)]
    Fault(#[from] fault::Injected),
    /// The first is what was to be done; the others are what its undoing met.
    #[error("{first}; undoing it left something behind: {left}")]
    Undone { first: Box<Error>, left: String },
    /// A retry that joined the operation got this.
    #[error("{message}")]
    Joined { code: tonic::Code, message: String },
    #[error("{0}")]
    Panicked(String),
}

impl Error {
    pub(super) fn path(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Path { action, path, source }
    }

    fn code(&self) -> Option<tonic::Code> {
        use tonic::Code;
        Some(match self {
            Self::NoContainer { .. } | Self::NoSandbox { .. } => Code::NotFound,
            Self::NotReady { .. } | Self::State { .. } => Code::FailedPrecondition,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Invalid { .. } | Self::Oci(_) => Code::InvalidArgument,
            Self::Unsupported { .. } => Code::Unimplemented,
            Self::Monitor { source: coracle_monitor::client::Error::Failed { kind, .. }, .. } => {
                match kind.as_str() {
                    "NotFound" => Code::NotFound,
                    "Conflict" => Code::FailedPrecondition,
                    "Invalid" => Code::InvalidArgument,
                    "Exhausted" => Code::DeadlineExceeded,
                    _ => Code::Internal,
                }
            }
            Self::Path { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Code::ResourceExhausted
            }
            Self::Monitor { .. } | Self::Runtime { .. } | Self::Record(_) | Self::Path { .. } => {
                Code::Internal
            }
            Self::Alive { .. } | Self::Fault(_) | Self::Panicked(_) => Code::Internal,
            Self::Undone { first, .. } => return first.code(),
            Self::Joined { code, .. } => *code,
            Self::Store(_) | Self::Bundle(_) | Self::Layer(_) | Self::Mount(_) => return None,
        })
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::Store(e) => status_of(e),
            Error::Bundle(e) => status_of(e),
            Error::Layer(e) => status_of(e),
            Error::Mount(e) => status_of(e),
            _ => Self::new(error.code().unwrap_or(tonic::Code::Internal), chain_once(&error)),
        }
    }
}

/// Variants that print their source themselves are not chained again.
fn chain_once(error: &Error) -> String {
    match error {
        Error::Store(_) | Error::Bundle(_) | Error::Layer(_) | Error::Mount(_) => chain(error),
        _ => error.to_string(),
    }
}
