//! Containers: from a CRI request to a process of the pod's monitor, and back.
//!
//! ```text
//! <root>/cri/containers/<id>/{container.json,upper,work,volumes/}   outlives a boot
//! <state>/containers/<id>/bundle/{config.json,rootfs}               of this boot; the overlay is attached at rootfs
//! ```
//!
//! Creating: the record is written first (`Creating`, in no list), then each step with its undo. Watching: one task a
//! container, from its creation on, learns its end from the monitor. Stop and Remove answer OK only when no process of the
//! container is alive: the kubelet detaches its volumes next. Recovery at start-up is the same code: what is `Creating` is
//! undone, what ran is watched again.

mod build;
mod create;
mod error;
mod host;
mod joins;
mod lifecycle;
mod monitor;
mod processes;
mod recover;
mod remove;
mod rootfs;
mod status;
mod stop;
mod undo;
mod update;
mod volumes;
mod watch;

use std::sync::Arc;

use k8s_cri::v1::{CheckpointContainerRequest, CheckpointContainerResponse};
use tonic::Status;

pub use create::create;
pub(crate) use joins::Creating;
pub use lifecycle::{reopen_log, start};
pub use recover::recover;
pub use remove::{remove, remove_all};
pub(crate) use status::status_of;
pub use status::{list, status};
pub use stop::{stop, stop_all};
pub use update::update_resources;

use crate::daemon::Daemon;
use crate::record::{Container, Entry};

/// CRIU restores nothing yet, so an archive that nobody can restore is not written.
pub async fn checkpoint(
    daemon: &Arc<Daemon>,
    request: CheckpointContainerRequest,
) -> Result<CheckpointContainerResponse, Status> {
    let id = find(daemon, &request.container_id)?.read().id.clone();
    Err(Status::unimplemented(format!(
        "checkpoint container {id}: not supported by this version of coracled"
    )))
}

/// The container with this id, or the only one whose id begins so.
fn find(daemon: &Daemon, id: &str) -> Result<Entry<Container>, error::Error> {
    let found = daemon
        .records
        .containers
        .find(id)
        .filter(|c| c.read().state != crate::record::ContainerState::Creating);
    found.ok_or_else(|| error::Error::NoContainer { id: id.to_owned() })
}
