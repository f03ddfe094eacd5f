//! What the parent opens for the child, because the child could not any more: namespaces to join, the exec fifo.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::init::StepError;
use crate::plan::namespaces::{Kind, Step};

const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Opens every namespace that the steps enter or join, and verifies that each is one.
///
/// # Errors
/// A path that can't be opened or is no namespace.
pub fn open_namespaces(steps: &[Step]) -> Result<Vec<(Kind, OwnedFd)>, StepError> {
    let mut opened = Vec::new();
    for step in steps {
        if let Step::Enter(kind, path) | Step::Join(kind, path) = step {
            opened.push((*kind, open_namespace(*kind, path)?));
        }
    }
    Ok(opened)
}

fn open_namespace(kind: Kind, path: &Path) -> Result<OwnedFd, StepError> {
    let what = format!("{} namespace {}", kind.proc_name(), path.display());
    let failed = |e| StepError::os("open", &what, e);
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let magic = rustix::fs::fstatfs(&fd).map_err(failed)?.f_type;
    // Before Linux 3.19 they were files of procfs; we support 5.4 and later.
    if u64::try_from(magic).is_ok_and(|m| m == NSFS_MAGIC) {
        return Ok(fd);
    }
    Err(StepError::why("open", what, "not a namespace file"))
}

/// Makes the exec fifo and opens it without an access mode: a read end held open would let init pass its gate.
///
/// # Errors
/// The kernel's.
pub fn make_gate(path: &Path, owner: (u32, u32)) -> Result<OwnedFd, StepError> {
    let failed = |step: &'static str| {
        let path = path.display().to_string();
        move |e| StepError::os(step, path, e)
    };
    let mode = Mode::from_raw_mode(0o622);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
        .map_err(failed("make exec fifo"))?;
    // mknod is subject to the umask.
    rustix::fs::chmod(path, mode).map_err(failed("chmod exec fifo"))?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
    if owner != (0, 0) {
        rustix::fs::chown(path, Some(uid), Some(gid)).map_err(failed("chown exec fifo"))?;
    }
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open exec fifo"))
}

/// Where descriptors 0 to 2 lead, for the record.
#[must_use]
pub fn external_descriptors(streams: Option<&[OwnedFd; 3]>) -> Vec<String> {
    (0..3)
        .map(|n| {
            let fd = streams.map_or(n, |s| s[n as usize].as_raw_fd());
            std::fs::read_link(format!("/proc/self/fd/{fd}"))
                .map_or_else(|_| "/dev/null".to_owned(), |p| p.to_string_lossy().into_owned())
        })
        .collect()
}
