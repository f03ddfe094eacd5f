//! Host paths of mounts: made where missing, resolved to the real place, and checked for the propagation that is asked for.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use k8s_cri::v1::{ContainerConfig, MountPropagation};

use super::error::Error;

/// One line of mountinfo (proc_pid_mountinfo(5)).
struct MountPoint {
    at: PathBuf,
    shared: bool,
    slave: bool,
}

/// Replaces each host path by the real one. A directory that is not there is made, as users of the peers rely on.
pub(super) fn resolve(config: &mut ContainerConfig) -> Result<(), Error> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(Error::path("read", "/proc/self/mountinfo"))?;
    for mount in config.mounts.iter_mut().filter(|m| m.image.is_none()) {
        let path = Path::new(&mount.host_path);
        if !path.is_absolute() {
            continue; // the configuration's builder names it
        }
        if std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            made.map_err(Error::path("create the missing host path", path))?;
        }
        let real = path.canonicalize().map_err(Error::path("host path", path))?;
        check_propagation(&table, &real, mount.propagation())?;
        mount.host_path = real.to_string_lossy().into_owned();
    }
    Ok(())
}

/// Mounts made below a private mount reach nobody: the request would be broken silently.
fn check_propagation(table: &str, path: &Path, wanted: MountPropagation) -> Result<(), Error> {
    if wanted == MountPropagation::PropagationPrivate {
        return Ok(());
    }
    let Some(point) =
        parse(table).filter(|m| path.starts_with(&m.at)).max_by_key(|m| m.at.components().count())
    else {
        return Ok(());
    };
    let (allowed, name, needs) = match wanted {
        MountPropagation::PropagationBidirectional => (point.shared, "Bidirectional", "shared"),
        _ => (point.shared || point.slave, "HostToContainer", "shared or slave"),
    };
    if allowed {
        return Ok(());
    }
    let (path, at) = (path.display(), point.at.display());
    Err(Error::Invalid {
        field: "mounts",
        why: format!("propagation {name} of {path} needs a {needs} mount, and that at {at} is private"),
    })
}

/// Where something is mounted.
pub(super) fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    parse(table).map(|m| m.at)
}

fn parse(table: &str) -> impl Iterator<Item = MountPoint> {
    table.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let at = PathBuf::from(unescape(fields.nth(4)?));
        let (mut shared, mut slave) = (false, false);
        for field in fields.skip(1).take_while(|f| *f != "-") {
            shared |= field.starts_with("shared:");
            slave |= field.starts_with("master:");
        }
        Some(MountPoint { at, shared, slave })
    })
}

/// The kernel writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n\
        2 1 0:5 / /srv rw - tmpfs t rw\n\
        3 2 0:6 / /srv/in\\040put rw master:7 - tmpfs t rw\n";

    #[test]
    fn propagation_is_checked_at_the_mount_that_holds_the_path() {
        let check = |path: &str, wanted| check_propagation(TABLE, Path::new(path), wanted);
        let (both, down) =
            (MountPropagation::PropagationBidirectional, MountPropagation::PropagationHostToContainer);
        assert!(check("/var/lib", both).is_ok() && check("/var/lib", down).is_ok());
        assert!(check("/srv/x", both).is_err() && check("/srv/x", down).is_err());
        assert!(check("/srv/in put/x", both).is_err() && check("/srv/in put/x", down).is_ok());
        assert!(check("/srv/x", MountPropagation::PropagationPrivate).is_ok());
        assert!(check("/srvx", both).is_ok(), "names are not compared as text");
    }
}
