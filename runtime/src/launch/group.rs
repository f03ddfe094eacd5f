//! The container's cgroup as `launch` sees it, so that "no cgroup at all" needs no second path.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::{CreateRequest, Error, ExecRequest};
use crate::cgroup::{self, Cgroup, Driver, FreezerState, HostCgroups};
use crate::proc_self::ProcSelf;
use crate::state::{CgroupDriverRecord, ContainerDir, Record};

/// A cgroup, or none.
#[derive(Debug, Default)]
pub struct Group(Option<Cgroup>);

impl Group {
    /// Makes the container's group with its limits; its paths are on the record before it is made.
    ///
    /// # Errors
    /// The cgroup's and the record's.
    pub fn create(
        req: &CreateRequest,
        record: &mut Record,
        dir: &ContainerDir,
        own: &ProcSelf,
    ) -> Result<Self, Error> {
        record.cgroup_driver = match req.cgroup_driver {
            Driver::Cgroupfs => CgroupDriverRecord::Cgroupfs,
            Driver::Systemd => CgroupDriverRecord::Systemd,
            Driver::Disabled => CgroupDriverRecord::Disabled,
        };
        if req.cgroup_driver == Driver::Disabled {
            dir.save(record).map_err(super::create::record_error)?;
            return Ok(Self(None));
        }
        let mut host = HostCgroups::of(own).map_err(failed)?;
        if req.cgroup_driver == Driver::Systemd {
            prepare_systemd(&mut host, req.rootless)?;
        }
        let plan =
            cgroup::plan(&req.spec, &req.id, req.cgroup_driver, req.rootless, &host).map_err(failed)?;
        record.cgroup_paths = plan.paths();
        record.cgroup_scope = plan.scope().map(str::to_owned);
        dir.save(record).map_err(super::create::record_error)?;
        let group = Self(Some(Cgroup::create(&plan).map_err(failed)?));
        if !group.needs_add() {
            group.limit_or_remove()?;
        }
        Ok(group)
    }

    fn limit_or_remove(&self) -> Result<(), Error> {
        let limited = self.apply_limits();
        if limited.is_err() {
            let _ = self.remove();
        }
        limited
    }

    /// The group that an exec enters.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn of_container(record: &Record, req: &ExecRequest) -> Result<Self, Error> {
        if record.cgroup_paths.is_empty() {
            return Ok(Self(None));
        }
        let whole = Cgroup::load(record.cgroup_paths.clone(), record.cgroup_scope.clone()).map_err(failed)?;
        whole.for_exec(&req.cgroup, record.init_process_pid).map(|group| Self(Some(group))).map_err(failed)
    }

    /// The target of `CLONE_INTO_CGROUP`, on v2.
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref()?.clone_into()
    }

    /// The `tasks` files that the child writes to, on v1.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        self.0.as_ref().map_or_else(|| Ok(Vec::new()), |group| group.join_files().map_err(failed))
    }

    /// The process can only be moved from outside (systemd).
    #[must_use]
    pub fn needs_add(&self) -> bool {
        self.0.as_ref().is_some_and(Cgroup::needs_add)
    }

    /// Makes the group around its first process, with its limits.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn adopt(&mut self, pid: i32) -> Result<(), Error> {
        if let Some(group) = &mut self.0 {
            group.adopt(pid).map_err(failed)?;
        }
        self.apply_limits()
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn add_process(&self, pid: i32) -> Result<(), Error> {
        self.each(|group| group.add_process(pid))
    }

    /// Writes the limits.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn apply_limits(&self) -> Result<(), Error> {
        self.each(Cgroup::apply_limits)
    }

    /// Restricts devices, once the child has made `/dev`.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn attach_devices(&self) -> Result<(), Error> {
        self.each(Cgroup::attach_devices)
    }

    /// The container is paused.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let Some(group) = &self.0 else { return Ok(false) };
        Ok(group.freezer_state().map_err(failed)? == FreezerState::Frozen)
    }

    /// Removes the group of a container that was not made.
    ///
    /// # Errors
    /// The cgroup's.
    pub fn remove(&self) -> Result<(), Error> {
        self.each(Cgroup::remove)
    }

    fn each(&self, act: impl FnOnce(&Cgroup) -> Result<(), cgroup::Error>) -> Result<(), Error> {
        self.0.as_ref().map_or(Ok(()), |group| act(group).map_err(failed))
    }
}

fn prepare_systemd(host: &mut HostCgroups, rootless: bool) -> Result<(), Error> {
    if !host.systemd {
        let text = "systemd cgroup flag passed, but systemd support for managing cgroups is not available";
        return Err(failed(cgroup::Error::Unsupported(text.to_owned())));
    }
    if rootless { host.find_user_manager().map_err(failed) } else { Ok(()) }
}

fn failed(error: cgroup::Error) -> Error {
    Error::Cgroup(Box::new(error))
}
