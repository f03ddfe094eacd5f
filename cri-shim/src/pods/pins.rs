//! The pod's namespaces, pinned by bind mounts of their files: they outlive the daemon and every process of the pod.
//!
//! One thread makes all of them, configures them from within (loopback, name, sysctls), pins them and ends: no other work
//! of the daemon ever runs there. The records name the pins before they are made.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::Error;

/// What to make. A pin that is `None` is a namespace of the host.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) net: Option<PathBuf>,
    pub(super) ipc: Option<PathBuf>,
    pub(super) uts: Option<PathBuf>,
    /// Empty keeps the host's name.
    pub(super) hostname: String,
    pub(super) sysctls: Vec<(String, String)>,
}

impl Wanted {
    pub(super) fn kinds(&self) -> [(&'static str, CloneFlags, Option<&PathBuf>); 3] {
        [
            ("net", CloneFlags::CLONE_NEWNET, self.net.as_ref()),
            ("ipc", CloneFlags::CLONE_NEWIPC, self.ipc.as_ref()),
            ("uts", CloneFlags::CLONE_NEWUTS, self.uts.as_ref()),
        ]
    }

    /// The pins that are wanted.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.net, &self.ipc, &self.uts].into_iter().flatten()
    }
}

/// Makes, configures and pins the namespaces; blocking. What a failure leaves is removed by [`remove`].
pub(super) fn make(wanted: Wanted) -> Result<(), Error> {
    for path in wanted.paths() {
        prepare(path)?;
    }
    on_a_thread(move || in_new_namespaces(&wanted))
}

/// Runs what changes the namespaces of its thread.
pub(super) fn on_a_thread(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    std::thread::spawn(work).join().unwrap_or_else(|_| {
        Err(Error::Namespaces { action: "make", source: io::Error::other("the thread panicked") })
    })
}

/// The file that a namespace is bound onto.
pub(super) fn prepare(path: &Path) -> Result<(), Error> {
    let fail = |source| Error::Path { action: "create", path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(fail)?;
    }
    File::create(path).map(drop).map_err(fail)
}

fn in_new_namespaces(wanted: &Wanted) -> Result<(), Error> {
    let fail = |action| move |errno: nix::errno::Errno| Error::Namespaces { action, source: errno.into() };
    let flags = wanted.kinds().into_iter().filter(|(_, _, path)| path.is_some());
    let flags = flags.fold(CloneFlags::empty(), |all, (_, flag, _)| all | flag);
    if !flags.is_empty() {
        unshare(flags).map_err(fail("make"))?;
    }
    configure(wanted)
}

/// Configures and pins the namespaces that the thread is in.
pub(super) fn configure(wanted: &Wanted) -> Result<(), Error> {
    let fail = |action| move |errno: nix::errno::Errno| Error::Namespaces { action, source: errno.into() };
    if wanted.net.is_some() {
        coracle_runtime::sys::network::loopback_up()
            .map_err(|source| Error::Namespaces { action: "bring up lo in", source })?;
    }
    if wanted.uts.is_some() && !wanted.hostname.is_empty() {
        nix::unistd::sethostname(&wanted.hostname).map_err(fail("name the host in"))?;
    }
    write_sysctls(&wanted.sysctls)?;
    for (kind, _, path) in wanted.kinds() {
        if let Some(path) = path {
            bind(Path::new(&format!("/proc/thread-self/ns/{kind}")), path)?;
        }
    }
    Ok(())
}

/// Pins the namespace file `from` at `path`.
pub(super) fn bind(from: &Path, path: &Path) -> Result<(), Error> {
    mount(Some(from), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| Error::Path {
        action: "pin a namespace at",
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// Writes through a procfs of our own that is attached nowhere: `/proc/sys` is read-only where the daemon runs in a
/// container.
fn write_sysctls(sysctls: &[(String, String)]) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let fail =
        |source: rustix::io::Errno| Error::Namespaces { action: "open a procfs for", source: source.into() };
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail)?;
    fsconfig_create(&context).map_err(fail)?;
    let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(fail)?;
    for (name, value) in sysctls {
        let path = format!("sys/{}", sysctl_path(name));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let written = rustix::fs::openat(&proc, &path, flags, Mode::empty())
            .and_then(|file| rustix::io::write(&file, value.as_bytes()));
        written.map_err(|errno| Error::Sysctl {
            name: name.clone(),
            value: value.clone(),
            source: errno.into(),
        })?;
    }
    Ok(())
}

/// Dots become slashes and the other way round, as sysctl(8) has it.
fn sysctl_path(name: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    name.chars().map(swap).collect()
}

/// Unpins: the kernel frees the namespace when its last process is gone. Fine where nothing is pinned.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    unmount(path)?;
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Path { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Detaches every mount at `path`; fine where there is none.
pub(super) fn unmount(path: &Path) -> Result<(), Error> {
    use nix::errno::Errno;
    // A retried step may have mounted twice: the bound keeps a kernel that says yes for ever from holding us.
    for _ in 0..64 {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(errno) => {
                let path = path.to_owned();
                return Err(Error::Path { action: "unmount", path, source: errno.into() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sysctls_become_paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
