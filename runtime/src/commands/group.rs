//! The verbs' side of cgroups: finds a container's groups from its record.

use crate::cgroup::{Cgroup, FreezerState};
use crate::error::{ErrorKind, Kind};
use crate::state::Record;

pub use crate::cgroup::{Error, OomWatch};

pub fn kind(error: &Error) -> ErrorKind {
    error.kind()
}

fn load(record: &Record) -> Result<Cgroup, Error> {
    Cgroup::load(record.cgroup_paths.clone(), record.cgroup_scope.clone())
}

pub fn is_frozen(record: &Record) -> bool {
    load(record).and_then(|group| group.freezer_state()).is_ok_and(|state| state == FreezerState::Frozen)
}

pub fn freeze(record: &Record, frozen: bool) -> Result<(), Error> {
    let group = load(record)?;
    if frozen { group.freeze() } else { group.thaw() }
}

pub fn pids(record: &Record) -> Result<Vec<i32>, Error> {
    load(record)?.pids(true)
}

pub fn kill(record: &Record, signal: i32) -> Result<(), Error> {
    load(record)?.kill(signal)
}

/// Removes the groups; who is still in them is killed.
pub fn remove(record: &Record) -> Result<(), Error> {
    crate::cgroup::remove_all(&record.cgroup_paths, record.cgroup_scope.as_deref(), || {
        drop(kill(record, libc::SIGKILL))
    })
}

pub fn exists(record: &Record) -> bool {
    record.cgroup_paths.values().any(|path| path.exists())
}

pub fn stats(record: &Record) -> Result<serde_json::Value, Error> {
    load(record)?.stats().map(|stats| stats.0)
}

pub fn update(record: &Record, resources: &oci_spec::runtime::LinuxResources) -> Result<(), Error> {
    load(record)?.update(resources)
}

pub fn is_busy(error: &Error) -> bool {
    error.errno() == Some(rustix::io::Errno::BUSY)
}

pub fn watch_oom(record: &Record) -> Result<OomWatch, Error> {
    load(record)?.watch_oom()
}
