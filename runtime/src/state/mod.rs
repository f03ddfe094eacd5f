//! What is known of a container on disk: its directory, lock, record and the identity of its first process.
//!
//! ```text
//! <root>/<id>/             0711, made by mkdir (exclusive: the id's reservation); flock on it serialises the commands
//! <root>/<id>/state.json   the record: temporary file + rename, never truncated in place
//! <root>/<id>/exec.fifo    there while the container is created and not yet started
//! ```
//!
//! What a kill at each step of `create` leaves: a directory without a record, or a record without an identity
//! (`Record::identity` is `None`): both are *half-created*, hold no process that outlives its parent, and are removed by
//! `delete --force` or by the next `create` of the same id, once the lock is free. Everything below the root belongs to
//! one boot (the default root is on tmpfs), so nothing is synced; a record of another boot is of a stopped container.

mod clock;
mod id;
mod identity;
mod record;
mod store;

pub use clock::{civil, now_rfc3339, now_rfc3339_seconds};
pub use id::validate_id;
pub use identity::Identity;
pub use record::{
    CgroupDriverRecord, Namespace, Record, RecordConfig, SPEC_VERSION, Status, VERSION, namespace_key,
};
pub use store::{ContainerDir, Store, UnlockedDir};

use std::path::PathBuf;

use crate::error::{ErrorKind, Kind};

/// What goes wrong with the containers' records.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id has characters that cannot be a directory name.
    #[error("invalid container ID format")]
    InvalidId,
    /// No id was given.
    #[error("container ID cannot be empty")]
    EmptyId,
    /// The id is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// Nobody has this id.
    #[error("container does not exist")]
    NotFound,
    /// A `create` of this id was cut short, and nothing else is known of it.
    #[error("container {id} is half-created: an earlier create was interrupted")]
    HalfCreated { id: String },
    /// Another command holds the container's lock for too long.
    #[error("container {id} is locked by another command")]
    Locked { id: String },
    /// The record does not parse.
    #[error("record {path}: {source}")]
    Corrupt { path: PathBuf, source: serde_json::Error },
    /// The record comes from a version of Coracle that this one does not read.
    #[error("record {path}: version {found} is newer than this program reads ({VERSION})")]
    Version { path: PathBuf, found: u32 },
    /// The record is bigger than any record can be.
    #[error("record {path}: larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
    /// A system call on a path failed.
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] crate::fault::Injected),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn errno(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidId | Self::EmptyId => ErrorKind::Invalid,
            Self::Exists | Self::HalfCreated { .. } | Self::Locked { .. } => ErrorKind::Conflict,
            Self::NotFound => ErrorKind::NotFound,
            Self::Corrupt { .. } | Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::Version { .. } => ErrorKind::Unsupported,
            Self::Io { source, .. } => source.raw_os_error().map_or(ErrorKind::Kernel, |e| {
                ErrorKind::from_errno(rustix::io::Errno::from_raw_os_error(e))
            }),
            Self::Fault(_) => ErrorKind::Kernel,
        }
    }
}
