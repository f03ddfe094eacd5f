//! A container's group, made or found again.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::devices::DeviceRules;
use super::directory::Directory;
use super::systemd::Unit;
use super::write::{self, Write};
use super::{CgroupPlan, Error, OomWatch, device_program, limits_v1, limits_v2, make, scope, stats};
use crate::sys::bpf;

/// A container's groups.
#[derive(Debug)]
pub struct Cgroup {
    pub(super) paths: BTreeMap<String, PathBuf>,
    /// The open directories of the groups that are there.
    pub(super) directories: BTreeMap<String, Directory>,
    limits: Vec<Write>,
    devices: DeviceRules,
    /// systemd's unit, which is the group on version 2.
    pub(super) unit: Option<Unit>,
    /// That unit is still to be made: it needs a process.
    pending: Option<Box<CgroupPlan>>,
    rootless: bool,
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

impl Cgroup {
    /// Makes the directories; with systemd that waits for [`Self::adopt`].
    ///
    /// # Errors
    /// The kernel's; what was made is removed again.
    pub fn create(plan: &CgroupPlan) -> Result<Self, Error> {
        let unit = plan.scope().map(|name| Unit::of(name, &plan.paths));
        let pending = unit.is_some().then(|| Box::new(plan.clone()));
        let paths = if pending.is_some() { make::refuse_used(plan)? } else { make::make(plan)? };
        let made = |(name, path): (&String, &PathBuf)| (name.clone(), Directory::made(path));
        let directories = if pending.is_some() { BTreeMap::new() } else { paths.iter().map(made).collect() };
        Ok(Self {
            paths,
            directories,
            limits: plan.limits.clone(),
            devices: plan.devices.clone(),
            unit,
            pending,
            rootless: plan.rootless,
        })
    }

    /// The group that a record describes.
    ///
    /// # Errors
    /// Never for groups that are gone.
    pub fn load(paths: BTreeMap<String, PathBuf>, scope: Option<String>) -> Result<Self, Error> {
        let unit = scope.map(|name| Unit::of(&name, &paths));
        let directories = paths
            .iter()
            .filter_map(|(controller, path)| Some((controller.clone(), Directory::open(path).ok()?)))
            .collect();
        let devices = DeviceRules::from_spec(&[])?;
        Ok(Self { paths, directories, limits: Vec::new(), devices, unit, pending: None, rootless: false })
    }

    /// The group an exec enters: the container's, sub-groups of it (`[controller:]path`), or init's where the container
    /// enabled controllers at its root.
    ///
    /// # Errors
    /// A sub-group that is not there.
    pub fn for_exec(&self, sub: &[String], init: i32) -> Result<Self, Error> {
        let mut paths = self.paths.clone();
        for text in sub {
            enter_below(&mut paths, text)?;
        }
        if let Some(path) = paths.values().find(|path| !path.is_dir()).filter(|_| !sub.is_empty()) {
            return Err(Error::path("adding pid to cgroups: open", path, Errno::NOENT));
        }
        if sub.is_empty() {
            make::follow_init(&mut paths, init);
        }
        Self::load(paths, self.unit.as_ref().map(|unit| unit.name.clone()))
    }

    /// The target of `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        // Where it can't be opened the caller moves the process later, and hears why.
        self.directories.get("")?.fd().ok()
    }

    /// The files into which the child writes `0`: on version 1 `tasks` of each hierarchy, the freezer last.
    ///
    /// # Errors
    /// The kernel's.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        let mut seen: Vec<&Path> = Vec::new();
        let mut all: Vec<(&String, &Directory)> =
            self.directories.iter().filter(|(name, _)| !name.is_empty()).collect();
        all.sort_by_key(|(name, _)| name.as_str() == "freezer");
        let mut files = Vec::new();
        for (_, directory) in all {
            if !seen.contains(&directory.path()) {
                seen.push(directory.path());
                files.push(directory.file("tasks", OFlags::WRONLY)?);
            }
        }
        Ok(files)
    }

    /// The group is made around its first process, by [`Self::adopt`].
    #[must_use]
    pub fn needs_add(&self) -> bool {
        self.pending.is_some()
    }

    /// Has systemd make the unit around `pid`; on version 1 makes the groups that systemd does not know.
    ///
    /// # Errors
    /// systemd's, the kernel's.
    pub fn adopt(&mut self, pid: i32) -> Result<(), Error> {
        let Some(plan) = self.pending.take() else { return Ok(()) };
        if let (Some(unit), Some(scope)) = (&self.unit, &plan.scope) {
            unit.start(scope, pid)?;
        }
        let alone = !plan.unified || plan.scope.as_ref().is_some_and(scope::ScopePlan::is_slice);
        if !plan.unified {
            self.paths = make::join(&plan)?;
        }
        for (name, path) in &self.paths {
            self.directories.insert(name.clone(), Directory::open(path)?);
        }
        if alone { self.add_process(pid) } else { Ok(()) }
    }

    /// Moves a process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_process(&self, pid: i32) -> Result<(), Error> {
        let write = |directory: &Directory| directory.write("cgroup.procs", &pid.to_string());
        match (self.directories.values().try_for_each(write), &self.unit) {
            // A user's session and a user's units have no common group that the user may write to.
            (Err(error), Some(unit)) if error.errno() == Some(Errno::ACCESS) => {
                unit.attach(pid).map_err(|_| error)
            }
            (result, _) => result,
        }
    }

    /// Writes the limits of the plan. After [`Self::create`].
    ///
    /// # Errors
    /// The first value that the kernel refused.
    pub fn apply_limits(&self) -> Result<(), Error> {
        write::apply(&self.limits, &self.directories)
    }

    /// Restricts devices, once the child has made `/dev`.
    ///
    /// # Errors
    /// The kernel's, but for EPERM where nothing that could be used is left to forbid (rootless).
    pub fn attach_devices(&self) -> Result<(), Error> {
        match self.restrict_devices() {
            Err(error) if self.rootless && matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS)) => {
                Ok(())
            }
            other => other,
        }
    }

    fn restrict_devices(&self) -> Result<(), Error> {
        if let Some(directory) = self.directories.get("devices") {
            let current = DeviceRules::parse(&directory.read("devices.list")?);
            let lines = self.devices.transition(&current);
            return lines.chunk_by(|a, b| a.0 == b.0).try_for_each(|run| {
                directory.write_each(run[0].0, run.iter().map(|(_, line)| line.as_str()))
            });
        }
        let unified = self.paths.len() == 1 && self.paths.contains_key("");
        let Some(directory) = self.directories.get("").filter(|_| unified) else { return Ok(()) };
        let failed = |e: std::io::Error| Error::io("restrict devices of", directory.path(), &e);
        let program = bpf::load_device_program(&device_program::assemble(&self.devices)).map_err(failed)?;
        if self.unit.is_some() {
            // systemd's own program stays beside ours: both must agree.
            return bpf::attach_device_program(directory.fd()?, &program, None).map_err(failed);
        }
        replace_device_program(directory.fd()?, &program).map_err(failed)
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

    /// What the group uses.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stats(&self) -> Result<Stats, Error> {
        Ok(Stats(serde_json::to_value(stats::read(&self.directories)).unwrap_or_default()))
    }

    /// Changes limits of the running group.
    ///
    /// # Errors
    /// The first value that the kernel refused.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        let writes = match self.directories.get("memory") {
            Some(memory) => {
                let memory_limit = memory.number("memory.limit_in_bytes")?;
                let swap = memory.has("memory.memsw.limit_in_bytes");
                limits_v1::limits(resources, limits_v1::Current { memory_limit, swap })?
            }
            None if self.paths.len() == 1 => {
                self.check_memory_usage(resources)?;
                limits_v2::limits(resources)?
            }
            None => limits_v1::limits(resources, limits_v1::Current::FRESH)?,
        };
        if let Some(unit) = &self.unit {
            let unified = self.paths.len() == 1;
            unit.set(&scope::limits(resources, unified)?)?;
        }
        write::apply(&writes, &self.directories)
    }

    /// With `checkBeforeUpdate` a limit below what is used is refused: version 2 would take it, and kill.
    fn check_memory_usage(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(memory) = resources.memory().as_ref().filter(|m| m.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        // Best effort, as in runc: an unreadable value forbids nothing.
        let Some(usage) = self.directories.get("").and_then(|d| d.number("memory.current").ok()) else {
            return Ok(());
        };
        for (name, limit) in [("memory+swap", memory.swap()), ("memory", memory.limit())] {
            if let Some(limit) = limit.and_then(|v| u64::try_from(v).ok()).filter(|v| (1..=usage).contains(v))
            {
                return Err(Error::Invalid(format!("rejecting {name} limit {limit} <= usage {usage}")));
            }
        }
        Ok(())
    }

    /// Watches for kills for lack of memory.
    ///
    /// # Errors
    /// The kernel's; a container without a memory group cannot be watched.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        OomWatch::open(&self.directories)
    }
}

/// Attaches `program` in place of what is attached: a group that was there may have another container's, and where several
/// are attached all must agree.
fn replace_device_program(group: BorrowedFd<'_>, program: &OwnedFd) -> std::io::Result<()> {
    let before = bpf::attached_device_programs(group)?;
    if let [one] = &before[..]
        && bpf::attach_device_program(group, program, Some(one)).is_ok()
    {
        return Ok(());
    }
    // Linux < 5.6, or several: at no moment is there none.
    bpf::attach_device_program(group, program, None)?;
    before.iter().try_for_each(|old| bpf::detach_device_program(group, old))
}

/// Moves the groups that `text` (`[controller,…:]path`) means to sub-groups.
fn enter_below(paths: &mut BTreeMap<String, PathBuf>, text: &str) -> Result<(), Error> {
    let (controllers, below) = text.split_once(':').unwrap_or(("", text));
    let controllers: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
    if let Some(name) = controllers.iter().find(|name| !paths.contains_key(**name)) {
        return Err(Error::Invalid(format!("unknown controller {name}")));
    }
    let below = Path::new(below);
    if below.components().any(|part| part == Component::ParentDir) {
        return Err(Error::Invalid(format!("bad sub cgroup path: {}", below.display())));
    }
    let below = super::plan::clean(below);
    let wanted = |name: &str| controllers.is_empty() || controllers.contains(&name);
    paths.iter_mut().filter(|(name, _)| wanted(name)).for_each(|(_, path)| *path = path.join(&below));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_enters_sub_groups_only() {
        let groups =
            || BTreeMap::from([("cpu", "/c/a"), ("memory", "/m/a")].map(|(c, p)| (c.to_owned(), p.into())));
        let after = |text: &str| {
            let mut paths: BTreeMap<String, PathBuf> = groups();
            enter_below(&mut paths, text).map(|()| paths.into_values().collect::<Vec<_>>())
        };
        assert_eq!(after("x").unwrap(), [Path::new("/c/a/x"), Path::new("/m/a/x")]);
        assert_eq!(after("/").unwrap(), [Path::new("/c/a"), Path::new("/m/a")]);
        assert_eq!(after("memory:x/y").unwrap(), [Path::new("/c/a"), Path::new("/m/a/x/y")]);
        assert_eq!(after("..").unwrap_err().to_string(), "bad sub cgroup path: ..");
        assert_eq!(after("cpu:x/../..").unwrap_err().to_string(), "bad sub cgroup path: x/../..");
        assert_eq!(after("io:x").unwrap_err().to_string(), "unknown controller io");
    }
}
