//! Runs the rest of this program from a copy of its binary that no container can write to (CVE-2019-5736).
//!
//! A lower-only overlay made by `fsopen` and never attached: nothing can be remounted and the page cache is shared.
//! Where that is not allowed (rootless, old kernels) a sealed memfd. Never a read-only bind: a process with
//! CAP_SYS_ADMIN makes that writable again while a descriptor of it is open.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
const SELF: &str = "/proc/self/exe";

/// Makes sure that this process runs from a sealed copy of its binary; re-executes it otherwise, and then does not
/// return. Call it first in `main`, for the verbs that enter containers.
///
/// # Errors
/// Neither an overlay nor a memfd could be made.
pub fn ensure_sealed() -> io::Result<()> {
    let exe = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if is_sealed(exe.as_fd())? {
        // execveat leaves the descriptor's number as the command name on older kernels.
        let _ = rustix::thread::set_name(c"coracle");
        return Ok(());
    }
    let copy = match overlay_copy() {
        Ok(copy) => copy,
        Err(_) => memfd_copy(exe)?,
    };
    exec(copy.as_fd())
}

/// A memfd proves itself by its seals. An overlay cannot: it counts only if it is read-only as a whole and was executed
/// by descriptor, as only we do (the kernel then reports `/dev/fd/N` as the program's name).
fn is_sealed(exe: BorrowedFd<'_>) -> io::Result<bool> {
    let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    if rustix::fs::fcntl_get_seals(exe).is_ok_and(|seals| seals.contains(all)) {
        return Ok(true);
    }
    let by_descriptor = rustix::param::linux_execfn().to_bytes().starts_with(b"/dev/fd/");
    let magic = u64::try_from(rustix::fs::fstatfs(exe)?.f_type).unwrap_or(0);
    let read_only = rustix::fs::fstatvfs(exe)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(by_descriptor && magic == OVERLAYFS_SUPER_MAGIC && read_only)
}

fn overlay_copy() -> io::Result<OwnedFd> {
    let path = std::fs::read_link(SELF)?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::NOENT.into());
    };
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // An overlay without an upper layer wants two lower ones; the second is never looked at.
    let lower = [dir, second_lower(dir)];
    let appended = lower
        .iter()
        .try_for_each(|layer| rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", *layer));
    if appended.is_err() {
        rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir", join_layers(&lower).as_os_str())?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let copy =
        rustix::fs::openat(&mount, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    same_file(&copy)?;
    Ok(copy)
}

/// The path may have been replaced since we were executed: what the overlay shows must be what runs.
fn same_file(copy: &OwnedFd) -> io::Result<()> {
    let (ours, theirs) = (rustix::fs::stat(SELF)?, rustix::fs::fstat(copy)?);
    let same =
        ours.st_ino == theirs.st_ino && ours.st_size == theirs.st_size && ours.st_mtime == theirs.st_mtime;
    if same { Ok(()) } else { Err(Errno::STALE.into()) }
}

fn second_lower(first: &Path) -> &'static Path {
    let run = Path::new("/run");
    if first.starts_with(run) { Path::new("/dev") } else { run }
}

/// Layers of the old `lowerdir` are separated by colons.
fn join_layers(layers: &[&Path]) -> PathBuf {
    let escaped: Vec<String> =
        layers.iter().map(|l| l.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")).collect();
    PathBuf::from(escaped.join(":"))
}

fn memfd_copy(exe: OwnedFd) -> io::Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match rustix::fs::memfd_create("coracle", base | MemfdFlags::EXEC) {
        // Before Linux 6.3 memfds are executable and the flag is unknown.
        Err(Errno::INVAL) => rustix::fs::memfd_create("coracle", base)?,
        Err(Errno::ACCESS) => {
            let text = "an executable memfd is refused: sysctl vm.memfd_noexec is 2";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        other => other?,
    };
    let mut memfd = File::from(memfd);
    io::copy(&mut File::from(exe), &mut memfd)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memfd, seals)?;
    Ok(memfd.into())
}

fn exec(copy: BorrowedFd<'_>) -> io::Result<()> {
    let c_string = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(Errno::INVAL));
    let arguments: Vec<CString> =
        std::env::args_os().map(|a| c_string(a.as_bytes())).collect::<Result<_, _>>()?;
    let environment: Vec<CString> = std::env::vars_os()
        .map(|(key, value)| c_string(&[key.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<_, _>>()?;
    let mut argv: Vec<*const libc::c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
    let mut envp: Vec<*const libc::c_char> = environment.iter().map(|e| e.as_ptr()).collect();
    argv.push(std::ptr::null());
    envp.push(std::ptr::null());
    let empty: &CStr = c"";
    // SAFETY: both arrays end in null and their strings outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            copy.as_raw_fd(),
            empty.as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(io::Error::last_os_error())
}
