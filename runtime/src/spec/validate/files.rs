//! Rules that look at the host's files: the root file system and the namespaces to join.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};

use super::{Facts, Report, namespace, word};
use crate::commands::clean_path;
use crate::init::step_error::errno_text;

/// Kinds that a kernel may lack, with the file that shows them and runc's name for them.
const OPTIONAL: [(Kind, &str, &str); 3] = [
    (Kind::User, "/proc/self/ns/user", "user namespaces aren't enabled in the kernel"),
    (Kind::Cgroup, "/proc/self/ns/cgroup", "cgroup namespaces aren't enabled in the kernel"),
    (Kind::Time, "/proc/self/timens_offsets", "time namespaces aren't enabled in the kernel"),
];

pub fn check(spec: &Spec, facts: &Facts, report: &mut Report) {
    rootfs(spec, &facts.bundle, report);
    for (kind, file, text) in OPTIONAL {
        if namespace(spec, kind).is_some() && !Path::new(file).exists() {
            report.problem("linux.namespaces", text);
        }
    }
    let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    for (index, ns) in list.into_iter().flatten().enumerate() {
        if let Some(path) = ns.path().as_ref().filter(|path| path.is_absolute())
            && let Err(text) = joinable(path, ns.typ())
        {
            report.problem(format!("linux.namespaces[{index}].path"), text);
        }
    }
}

fn rootfs(spec: &Spec, bundle: &Path, report: &mut Report) {
    let Some(root) = spec.root().as_ref().filter(|root| !root.path().as_os_str().is_empty()) else { return };
    let path = clean_path(&bundle.join(root.path()));
    match path.canonicalize() {
        Err(error) => {
            let reason = error.raw_os_error().map_or_else(|| error.to_string(), errno_text);
            report.problem("root.path", format!("invalid rootfs: stat {}: {reason}", path.display()));
        }
        Ok(real) if real != path => {
            report.problem("root.path", "invalid rootfs: not an absolute path, or a symlink");
        }
        Ok(_) => {}
    }
}

/// The path must be of nsfs, and its link name or ioctl would tell the kind; a bind mount of one has no link name, so
/// only a link below /proc is compared.
fn joinable(path: &PathBuf, kind: Kind) -> Result<(), String> {
    let stat = rustix::fs::statfs(path).map_err(|errno| {
        let reason = errno_text(errno.raw_os_error());
        format!("invalid {} namespace path: stat {}: {reason}", word(kind), path.display())
    })?;
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    if u64::try_from(stat.f_type).ok() != Some(NSFS_MAGIC) {
        return Err(format!("{} is not a namespace", path.display()));
    }
    let Ok(link) = std::fs::read_link(path) else { return Ok(()) };
    let Some((found, _)) = link.to_str().and_then(|link| link.split_once(":[")) else { return Ok(()) };
    let wanted = kind.to_string();
    if found == wanted || found == format!("{wanted}_for_children") {
        Ok(())
    } else {
        Err(format!("{} is a {found} namespace, not a {wanted} namespace", path.display()))
    }
}
