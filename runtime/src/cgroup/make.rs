//! Makes the directories of a plan, from each mount down, so that the group can hold processes and limits.
//!
//! On version 1 an empty cpuset takes no process: each level is filled from its parent. On version 2 each level above the
//! group enables its controllers for the next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::directory::Directory;
use super::{CgroupPlan, Error, host};

/// Makes all groups; those that a forgiving plan may not make are left out of the answer.
pub(super) fn make(plan: &CgroupPlan) -> Result<BTreeMap<String, PathBuf>, Error> {
    // For modes that are exact without a chmod, which costs as much as the mkdir.
    let umask = rustix::process::umask(Mode::empty());
    let made = make_all(plan);
    rustix::process::umask(umask);
    made
}

/// Makes the groups that systemd made already in some hierarchies, with the container's process in them.
pub(super) fn join(plan: &CgroupPlan) -> Result<BTreeMap<String, PathBuf>, Error> {
    for (controller, path) in &plan.paths {
        let mount = plan.mounts.get(controller).map_or_else(|| Path::new("/sys/fs/cgroup"), PathBuf::as_path);
        descend(controller, mount, path, plan.unified, &mut Vec::new())?;
    }
    Ok(plan.paths.clone())
}

fn make_all(plan: &CgroupPlan) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut made = BTreeMap::new();
    let mut undo: Vec<PathBuf> = Vec::new();
    for (controller, path) in &plan.paths {
        let mount = plan.mounts.get(controller).map_or_else(|| Path::new("/sys/fs/cgroup"), PathBuf::as_path);
        let outcome = make_one(controller, mount, path, plan.unified, &mut undo);
        // A group that was there is fine when nobody is in it (left by a crash, or prepared by the caller).
        match outcome.and_then(|()| if undo.contains(path) { Ok(()) } else { refuse_foreign(path) }) {
            Ok(()) => {
                made.insert(controller.clone(), path.clone());
            }
            Err(error) if plan.forgiving && is_refusal(&error) => {}
            Err(error) => {
                roll_back(&undo);
                return Err(error);
            }
        }
    }
    Ok(made)
}

/// The groups of a unit that is still to be made: none of them has a process in it.
pub(super) fn refuse_used(plan: &CgroupPlan) -> Result<BTreeMap<String, PathBuf>, Error> {
    plan.paths.values().filter(|path| path.is_dir()).try_for_each(|path| refuse_foreign(path))?;
    Ok(plan.paths.clone())
}

/// A failed rmdir means that somebody has begun to use the group: it stays.
fn roll_back(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let _ = rustix::fs::rmdir(path);
    }
}

/// A group with processes is not the container's: limits would hit them, and a forced `delete` kills what is in the group.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    let directory = Directory::open(path)?;
    let count = directory.read("cgroup.procs")?.lines().count();
    if count > 0 {
        return Err(Error::NotEmpty { path: path.to_owned(), count });
    }
    // What enters a frozen group never gets as far as saying so.
    let v1 = directory.read_if_there("freezer.state")?.is_some_and(|state| state.trim() != "THAWED");
    if v1 || directory.read_if_there("cgroup.freeze")?.is_some_and(|state| state.trim() == "1") {
        return Err(Error::Invalid("container's cgroup unexpectedly frozen".to_owned()));
    }
    Ok(())
}

/// Below a group with processes of its own a new group holds no processes, unless it is a threaded one, which has no
/// controllers of memory or devices: the container's is never one.
fn refuse_threaded(path: &Path) -> Result<(), Error> {
    let kind = Directory::open(path)?.read_if_there("cgroup.type")?.unwrap_or_default();
    match kind.trim() {
        "domain invalid" => Err(unusable(path, "it is in an invalid state")),
        kind @ ("threaded" | "domain threaded") => Err(unusable(path, &format!("it is in {kind} mode"))),
        _ => Ok(()),
    }
}

fn unusable(path: &Path, why: &str) -> Error {
    let path = path.display().to_string();
    Error::Invalid(format!("cannot enter cgroupv2 {path:?} with domain controllers -- {why}"))
}

fn is_refusal(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOENT))
}

/// Makes one group. The groups above it are there as a rule, so that on version 1 one call is enough.
fn make_one(
    controller: &str,
    mount: &Path,
    path: &Path,
    unified: bool,
    undo: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    if !unified && rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).is_ok() {
        undo.push(path.to_owned());
        let filled = match path.parent() {
            Some(parent) if controller == "cpuset" => fill_cpuset(parent, path, true)?,
            _ => true,
        };
        if filled {
            return Ok(());
        }
    }
    descend(controller, mount, path, unified, undo)
}

fn descend(
    controller: &str,
    mount: &Path,
    path: &Path,
    unified: bool,
    undo: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    let below = path.strip_prefix(mount).unwrap_or(path);
    let mut current = mount.to_owned();
    for name in below.components() {
        if unified {
            enable_controllers(&Directory::open(&current)?);
        }
        let parent = current.clone();
        current.push(name);
        if Directory::make(&current)? {
            undo.push(current.clone());
        }
        if controller == "cpuset" {
            fill_cpuset(&parent, &current, false)?;
        }
    }
    if unified { refuse_threaded(path) } else { Ok(()) }
}

/// What can't be enabled is missed when a limit is written, with the controller's name.
fn enable_controllers(directory: &Directory) {
    let controllers = directory.read("cgroup.controllers").unwrap_or_default();
    let enabled = directory.read("cgroup.subtree_control").unwrap_or_default();
    for controller in controllers.split_whitespace().filter(|c| !enabled.split_whitespace().any(|e| e == *c))
    {
        let _ = directory.write("cgroup.subtree_control", &format!("+{controller}"));
    }
}

/// Gives an empty cpuset its parent's; what a group that is not `fresh` has is kept. `false` where the parent is empty too.
fn fill_cpuset(parent: &Path, child: &Path, fresh: bool) -> Result<bool, Error> {
    let (parent, child) = (Directory::open(parent)?, Directory::open(child)?);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !fresh && !child.read(file)?.trim().is_empty() {
            continue;
        }
        let inherited = parent.read(file)?;
        if inherited.trim().is_empty() {
            return Ok(false);
        }
        child.write(file, inherited.trim())?;
    }
    Ok(true)
}

/// On version 2 a group that enabled controllers for others takes no processes: then init's group, below it, is meant.
pub(super) fn follow_init(paths: &mut BTreeMap<String, PathBuf>, init: i32) {
    if paths.len() != 1 {
        return;
    }
    let Some(path) = paths.get_mut("") else { return };
    let busy =
        crate::small_file::read_text(path.join("cgroup.subtree_control")).is_ok_and(|t| !t.trim().is_empty());
    let Some(own) = host::groups_of(init).remove("") else { return };
    let candidate = Path::new("/sys/fs/cgroup").join(own.trim_start_matches('/'));
    if busy && candidate.starts_with(&*path) {
        *path = candidate;
    }
}
