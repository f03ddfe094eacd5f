//! Network namespaces, pinned by a bind mount of their nsfs file.

use std::future::Future;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::Error;

/// Where Multus, Cilium and Istio look for namespaces (hazard: they mount this directory).
pub const DIRECTORY: &str = "/run/netns";

/// The pin of a sandbox's namespace.
#[must_use]
pub fn path_of(directory: &Path, sandbox: &str) -> PathBuf {
    directory.join(format!("coracle-{sandbox}"))
}

/// Makes a namespace and pins it at `path`; an existing pin is kept and counts as success.
pub fn create(path: &Path) -> Result<(), Error> {
    if is_pinned(path) {
        return Ok(());
    }
    let fail = |action| move |source: std::io::Error| Error::Namespace { path: path.into(), action, source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(fail("create the directory of"))?;
    }
    std::fs::File::create(path).map_err(fail("create"))?;
    let target = path.to_owned();
    // A thread of its own, which ends in the new namespace: no other work of the daemon ever runs there.
    let made = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    })
    .join();
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errno)) => {
            let _ = std::fs::remove_file(path);
            Err(fail("make")(errno.into()))
        }
        Err(_) => Err(fail("make")(std::io::Error::other("the thread panicked"))),
    }
}

/// Unpins; the kernel frees the namespace, its interfaces and addresses when the last process is gone.
pub fn remove(path: &Path) -> Result<(), Error> {
    let fail = |action, source| Error::Namespace { path: path.into(), action, source };
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(errno) => return Err(fail("unmount", errno.into())),
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(fail("remove", e)),
        _ => Ok(()),
    }
}

/// Whether a namespace is pinned at `path` (and not merely an empty file left by a crash or a reboot).
#[must_use]
pub fn is_pinned(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type == NSFS_MAGIC)
}

/// Runs `work` on a thread inside the namespace at `path` and waits for it.
pub async fn run_in<T, F, W>(path: &Path, work: W) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>>,
    W: FnOnce() -> F + Send + 'static,
{
    let path = path.to_owned();
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = done.send(enter_and_run(&path, work));
    });
    result.await.unwrap_or_else(|_| {
        Err(Error::Namespace {
            path: DIRECTORY.into(),
            action: "work in",
            source: std::io::Error::other("thread died"),
        })
    })
}

fn enter_and_run<T, F, W>(path: &Path, work: W) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
    W: FnOnce() -> F,
{
    let fail = |action| move |source: std::io::Error| Error::Namespace { path: path.into(), action, source };
    let file = std::fs::File::open(path).map_err(fail("open"))?;
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from).map_err(fail("enter"))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail("work in"))?;
    runtime.block_on(work())
}
