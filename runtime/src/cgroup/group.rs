//! A container's group, made or found again.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use super::{CgroupPlan, Error};

/// A container's groups.
#[derive(Debug)]
pub struct Cgroup {
    paths: BTreeMap<String, PathBuf>,
}

/// What `runc events` prints as `data`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Stats(pub serde_json::Value);

/// Whether the group runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// It runs, or there is no freezer.
    Thawed,
    /// Every process is stopped.
    Frozen,
}

/// Reports kills for lack of memory.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl OomWatch {
    /// What to poll for.
    #[must_use]
    pub fn poll_fd(&self) -> rustix::event::PollFd<'_> {
        rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::IN)
    }

    /// How many kills there were since the last call.
    pub fn take(&mut self) -> u64 {
        0
    }
}

fn missing<T>() -> Result<T, Error> {
    Err(Error::Unsupported("cgroups".to_owned()))
}

impl Cgroup {
    /// Makes the directories; with systemd nothing until [`Self::add_process`].
    ///
    /// # Errors
    /// The kernel's; what was made is removed again.
    pub fn create(_plan: &CgroupPlan) -> Result<Self, Error> {
        Ok(Self { paths: BTreeMap::new() })
    }

    /// The group that a record describes.
    ///
    /// # Errors
    /// Never for groups that are gone.
    pub fn load(paths: BTreeMap<String, PathBuf>, _scope: Option<String>) -> Result<Self, Error> {
        Ok(Self { paths })
    }

    /// The group an exec enters: the container's, sub-groups of it (`[controller:]path`), or init's where the container
    /// enabled controllers at its root.
    ///
    /// # Errors
    /// A sub-group that is not there.
    pub fn for_exec(&self, _sub: &[String], _init: i32) -> Result<Self, Error> {
        Ok(Self { paths: self.paths.clone() })
    }

    /// The target of `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The files into which the child writes `0`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        Ok(Vec::new())
    }

    /// The process can only be moved from outside (systemd).
    #[must_use]
    pub fn needs_add(&self) -> bool {
        false
    }

    /// Moves a process; with systemd this makes the scope.
    ///
    /// # Errors
    /// The kernel's or systemd's.
    pub fn add_process(&self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }

    /// Writes the limits of the plan. After [`Self::create`]; with systemd after [`Self::add_process`].
    ///
    /// # Errors
    /// The first value that the kernel refused.
    pub fn apply_limits(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Restricts devices, once the child has made `/dev`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach_devices(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The directories.
    #[must_use]
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    /// The group is still there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.paths.values().any(|path| path.exists())
    }

    /// Its processes, with `all` also those of groups below.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pids(&self, _all: bool) -> Result<Vec<i32>, Error> {
        missing()
    }

    /// Stops every process.
    ///
    /// # Errors
    /// The kernel's; the group is thawed again.
    pub fn freeze(&self) -> Result<(), Error> {
        missing()
    }

    /// Lets every process run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn thaw(&self) -> Result<(), Error> {
        missing()
    }

    /// Whether the group is frozen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn freezer_state(&self) -> Result<FreezerState, Error> {
        Ok(FreezerState::Thawed)
    }

    /// Signals every process of the group and of those below.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&self, _signal: i32) -> Result<(), Error> {
        Ok(())
    }

    /// What the group uses.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stats(&self) -> Result<Stats, Error> {
        missing()
    }

    /// Changes limits of the running group.
    ///
    /// # Errors
    /// The first value that the kernel refused.
    pub fn update(&self, _resources: &LinuxResources) -> Result<(), Error> {
        missing()
    }

    /// Removes the group and those below, deepest first.
    ///
    /// # Errors
    /// A group that stays busy.
    pub fn remove(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Watches for kills for lack of memory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        missing()
    }
}
