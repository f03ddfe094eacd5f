//! Makes the directories of a plan, from each mount down, so that the group can hold processes and limits.
//!
//! On version 1 an empty cpuset takes no process: each level is filled from its parent. On version 2 each level above the
//! group enables its controllers for the next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::directory::Directory;
use super::{CgroupPlan, Error, host};

/// Makes all groups; those that a forgiving plan may not make are left out of the answer.
pub(super) fn make(plan: &CgroupPlan) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut made = BTreeMap::new();
    let mut undo: Vec<PathBuf> = Vec::new();
    for (controller, path) in &plan.paths {
        let mount = plan.mounts.get(controller).map_or_else(|| Path::new("/sys/fs/cgroup"), PathBuf::as_path);
        let outcome = descend(controller, mount, path, plan.unified, &mut undo);
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

/// A failed rmdir means that somebody has begun to use the group: it stays.
fn roll_back(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let _ = rustix::fs::rmdir(path);
    }
}

/// A group with processes is not the container's: limits would hit them, and a forced `delete` kills what is in the group.
fn refuse_foreign(path: &Path) -> Result<(), Error> {
    let count = Directory::open(path)?.read("cgroup.procs")?.lines().count();
    if count == 0 { Ok(()) } else { Err(Error::NotEmpty { path: path.to_owned(), count }) }
}

fn is_refusal(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOENT))
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
            fill_cpuset(&parent, &current)?;
        }
    }
    Ok(())
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

fn fill_cpuset(parent: &Path, child: &Path) -> Result<(), Error> {
    let (parent, child) = (Directory::open(parent)?, Directory::open(child)?);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.read(file)?.trim().is_empty() {
            child.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

/// On version 2 a group that enabled controllers for others takes no processes: then init's group, below it, is meant.
pub(super) fn follow_init(paths: &mut BTreeMap<String, PathBuf>, init: i32) {
    if paths.len() != 1 {
        return;
    }
    let Some(path) = paths.get_mut("") else { return };
    let busy =
        std::fs::read_to_string(path.join("cgroup.subtree_control")).is_ok_and(|t| !t.trim().is_empty());
    let Some(own) = host::groups_of(init).remove("") else { return };
    let candidate = Path::new("/sys/fs/cgroup").join(own.trim_start_matches('/'));
    if busy && candidate.starts_with(&*path) {
        *path = candidate;
    }
}
