//! Writes `linux.sysctl`: only keys that a namespace of the container owns (checked by the plan).

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::StepError;

const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Writes every pair through the container's procfs, which is verified to be one.
///
/// # Errors
/// A key that does not exist, a value that the kernel refuses.
pub fn apply(sysctls: &[(String, String)]) -> Result<(), StepError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = open_proc()?;
    for (key, value) in sysctls {
        write(&proc, key, value)?;
    }
    Ok(())
}

fn open_proc() -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |e| StepError::os("open", "/proc", e);
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(failed)?;
    let magic = rustix::fs::fstatfs(&proc).map_err(failed)?.f_type;
    if u64::try_from(magic).is_ok_and(|m| m == PROC_SUPER_MAGIC) {
        return Ok(proc);
    }
    Err(StepError::why("write sysctls", "/proc", "is not a procfs"))
}

fn write(proc: &OwnedFd, key: &str, value: &str) -> Result<(), StepError> {
    let path = format!("sys/{}", path_of(key));
    let failed = |e| StepError::os("write sysctl", key, e);
    // A bind mount over part of /proc/sys would be another file.
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat2(proc, &path, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            rustix::fs::openat(proc, &path, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    rustix::io::write(&file, value.as_bytes()).map(drop).map_err(failed)
}

/// `net.ipv4.ip_forward` to `net/ipv4/ip_forward`; a key may also come with slashes, and then dots are part of names.
#[must_use]
pub fn path_of(key: &str) -> String {
    let first = key.find(['.', '/']).map(|i| key.as_bytes()[i]);
    if first == Some(b'/') {
        key.to_owned()
    } else {
        key.replace('.', "\u{0}").replace('/', ".").replace('\u{0}', "/")
    }
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn keys_become_paths() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path_of("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path_of("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
