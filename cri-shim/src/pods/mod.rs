//! Pod sandboxes.
//!
//! ```text
//! run ──▶ intend (record) ─▶ namespaces ─▶ cgroup ─▶ network ─▶ files ─▶ monitor ─▶ ready
//! stop ─▶ not ready ─▶ containers ─▶ init ─▶ network        remove ─▶ … ─▶ monitor ─▶ pins, mounts, cgroup, directory ─▶ record
//! ```
//! A record names everything before it is made, so that `teardown` needs nothing but the record, whether a step failed,
//! the daemon was killed or the client asks. Every change holds the sandbox's turn.

mod cgroup;
mod error;
mod files;
mod init;
mod joins;
mod monitor;
mod pins;
mod plan;
mod recover;
mod run;
mod service;
mod status;
mod teardown;
mod user;

use std::sync::Arc;

use k8s_cri::v1::{ContainerEventResponse, ContainerEventType, ContainerStatus};

pub(crate) use error::Error;
pub(crate) use joins::Joins;
pub use recover::recover;
pub use run::run;
pub use service::{service_status, update_runtime_config};
pub(crate) use status::status_of;
pub use status::{list, status};
pub use teardown::{remove, stop};

use crate::containers;
use crate::daemon::Daemon;
use crate::record::{ContainerState, Entry, Sandbox, SandboxState};

/// The sandbox that a client means by an id or its beginning; one that is being made is not there yet.
pub(crate) fn find(daemon: &Daemon, id: &str) -> Option<Entry<Sandbox>> {
    daemon.records.sandboxes.find(id).filter(|entry| entry.read().state != SandboxState::Creating)
}

/// Tells those who listen of a change of the sandbox itself.
fn event(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>, kind: ContainerEventType) {
    let sandbox = entry.get();
    // An error says that nobody listens.
    let _ = daemon.events.send(ContainerEventResponse {
        container_id: sandbox.id.clone(),
        container_event_type: kind as i32,
        created_at: crate::fresh::now(),
        pod_sandbox_status: Some(status_of(&sandbox)),
        containers_statuses: containers_of(daemon, &sandbox.id),
    });
}

/// The statuses of a pod's containers, as far as the records know.
fn containers_of(daemon: &Daemon, id: &str) -> Vec<ContainerStatus> {
    let containers = daemon.records.containers_of(id);
    let shown = containers.iter().map(|c| c.get()).filter(|c| c.state != ContainerState::Creating);
    shown.map(|c| containers::status_of(&c)).collect()
}
