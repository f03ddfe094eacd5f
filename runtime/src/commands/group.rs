//! The verbs' side of cgroups: finds a container's groups from its record.

use std::io;
use std::path::PathBuf;

use crate::error::ErrorKind;
use crate::state::Record;

pub type Error = io::Error;

pub fn kind(error: &Error) -> ErrorKind {
    error
        .raw_os_error()
        .map_or(ErrorKind::Kernel, |e| ErrorKind::from_errno(rustix::io::Errno::from_raw_os_error(e)))
}

pub fn is_frozen(record: &Record) -> bool {
    let v2 = record.cgroup_paths.get("").map(|path| path.join("cgroup.freeze"));
    let v1 = record.cgroup_paths.get("freezer").map(|path| path.join("freezer.state"));
    let read = |path: Option<PathBuf>| path.and_then(|path| std::fs::read_to_string(path).ok());
    read(v1).is_some_and(|state| state.trim() != "THAWED")
        || read(v2).is_some_and(|state| state.trim() == "1")
}

fn missing() -> Error {
    io::Error::from_raw_os_error(libc::ENOSYS)
}

pub fn freeze(_: &Record, _frozen: bool) -> Result<(), Error> {
    Err(missing())
}

pub fn pids(_: &Record) -> Result<Vec<i32>, Error> {
    Err(missing())
}

pub fn kill(_: &Record, _signal: i32) -> Result<(), Error> {
    Ok(())
}

pub fn remove(_: &Record) -> Result<(), Error> {
    Ok(())
}

pub fn exists(record: &Record) -> bool {
    record.cgroup_paths.values().any(|path| path.exists())
}

pub fn stats(_: &Record) -> Result<serde_json::Value, Error> {
    Err(missing())
}

pub fn update(_: &Record, _: &oci_spec::runtime::LinuxResources) -> Result<(), Error> {
    Err(missing())
}

pub fn is_busy(error: &Error) -> bool {
    error.raw_os_error() == Some(libc::EBUSY)
}

pub struct OomWatch;

impl OomWatch {
    pub fn poll_fd(&self) -> rustix::event::PollFd<'_> {
        unimplemented!()
    }

    pub fn take(&mut self) -> u64 {
        0
    }
}

pub fn watch_oom(_: &Record) -> Result<OomWatch, Error> {
    Err(missing())
}
