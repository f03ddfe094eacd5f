//! The container's cgroup as `launch` sees it, so that "no cgroup at all" needs no second path.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::{CreateRequest, Error, ExecRequest};
use crate::state::{ContainerDir, Record};

/// A cgroup, or none.
#[derive(Debug, Default)]
pub struct Group {}

impl Group {
    /// Makes the container's group; its paths are on the record before.
    ///
    /// # Errors
    /// The cgroup's and the record's.
    pub fn create(_req: &CreateRequest, record: &mut Record, dir: &ContainerDir) -> Result<Self, Error> {
        dir.save(record).map_err(super::create::record_error)?;
        Ok(Self {})
    }

    /// The group that an exec enters.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn of_container(_record: &Record, _req: &ExecRequest) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// The target of `CLONE_INTO_CGROUP`, on v2.
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The `tasks` files that the child writes to, on v1.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        Ok(Vec::new())
    }

    /// The process can only be moved from outside (systemd).
    #[must_use]
    pub fn needs_add(&self) -> bool {
        false
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn add_process(&self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }

    /// Restricts devices, once the child has made `/dev`.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn attach_devices(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The container is paused.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// Removes the group of a container that was not made.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn remove(&self) -> Result<(), Error> {
        Ok(())
    }
}
