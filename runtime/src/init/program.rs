//! The program itself: its look-up in the container's PATH, its environment and the exec.

use std::ffi::{CStr, CString, OsString};
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::StepError;
use super::step_error::errno_text;
use crate::plan::process::ProcessPlan;
use crate::seccomp::Filter;
use crate::sys::signals;

/// As much of the image's passwd file is searched for a home directory.
const MAX_PASSWD: u64 = 1 << 20;

/// A process to become, and what its steps share.
#[derive(Debug)]
pub struct Program {
    pub process: ProcessPlan,
    pub seccomp: Option<Filter>,
    pub may_set_groups: bool,
    /// The caller's `LISTEN_FDS` was passed on: the program learns its own pid.
    pub listen_fds: u32,
    /// The host's procfs, opened before the root changes.
    proc: Option<OwnedFd>,
    path: Option<CString>,
}

impl Program {
    /// A program that is not yet looked up.
    #[must_use]
    pub fn new(process: ProcessPlan, seccomp: Option<Filter>, may_set_groups: bool, listen_fds: u32) -> Self {
        Self { process, seccomp, may_set_groups, listen_fds, proc: None, path: None }
    }

    /// Opens `/proc` while it is still the host's, which the container can't have replaced.
    ///
    /// # Errors
    /// No procfs.
    pub fn open_proc(&mut self) -> Result<(), StepError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty());
        self.proc = Some(proc.map_err(|e| StepError::os("open", "/proc", e))?);
        Ok(())
    }

    /// Opens what our descriptor `fd` refers to anew. This may wait, and nothing but the procfs is open meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::BADF)?;
        let path = format!("self/fd/{}", fd.as_raw_fd());
        rustix::io::retry_on_intr(|| rustix::fs::openat(proc, &*path, flags | OFlags::CLOEXEC, Mode::empty()))
    }

    /// The environment as pairs, for hooks.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let pair = |entry: &CString| {
            let bytes = entry.as_bytes();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            let text = |part: &[u8]| OsString::from_vec(part.to_owned());
            Some((text(&bytes[..at]), text(&bytes[at + 1..])))
        };
        self.process.env.iter().filter_map(pair).collect()
    }

    /// Writes `value` to the first of `names` below `/proc/self/attr` that exists.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_attr(
        &self,
        names: &[&str],
        value: &str,
        step: &'static str,
        object: &str,
    ) -> Result<(), StepError> {
        let proc = self.proc.as_ref().ok_or_else(|| StepError::why(step, object, "no procfs"))?;
        let open = |name: &&str| {
            rustix::fs::openat(
                proc,
                format!("self/attr/{name}"),
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let file = names.iter().map(open).find(|r| !matches!(r, Err(Errno::NOENT)));
        let file = file.unwrap_or(Err(Errno::NOENT)).map_err(|e| StepError::os(step, object, e))?;
        rustix::io::write(&file, value.as_bytes()).map(drop).map_err(|e| StepError::os(step, object, e))
    }

    /// Adds HOME from the container's `/etc/passwd` where it is missing or empty, and what socket activation needs.
    pub fn complete_environment(&mut self) {
        if self.variable(b"HOME").is_none_or(|home| home.is_empty()) {
            let passwd = read_passwd().unwrap_or_default();
            let home = home_of(&passwd, self.process.uid).unwrap_or(b"/");
            self.set(&[b"HOME=", home].concat());
        }
        if self.listen_fds > 0 {
            self.set(format!("LISTEN_FDS={}", self.listen_fds).as_bytes());
            self.set(format!("LISTEN_PID={}", rustix::process::getpid().as_raw_nonzero()).as_bytes());
        }
    }

    /// Looks the program up as a shell would, with runc's error texts.
    ///
    /// # Errors
    /// Not found, or not executable.
    pub fn find(&mut self) -> Result<(), StepError> {
        let name = self.process.args.first().cloned().unwrap_or_default();
        let path = look_path(&name, self.variable(b"PATH"))
            .map_err(|cause| StepError::why("exec:", format!("{:?}", name.to_string_lossy()), cause))?;
        self.path = Some(path);
        Ok(())
    }

    /// Becomes the program.
    ///
    /// # Errors
    /// The exec's.
    pub fn execute(&self) -> Result<(), StepError> {
        let path = self.path.as_ref().ok_or_else(|| StepError::why("exec", "", "not looked up"))?;
        signals::reset().map_err(|e| StepError::io("reset signals", "", &e))?;
        let result = nix::unistd::execve(path, &self.process.args, &self.process.env);
        let errno = result.map_or_else(|e| e as i32, |_| 0);
        Err(StepError::os("exec", path.to_string_lossy(), Errno::from_raw_os_error(errno)))
    }

    fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        self.process.env.iter().find_map(|v| v.to_bytes().strip_prefix(name)?.strip_prefix(b"="))
    }

    fn set(&mut self, variable: &[u8]) {
        let name = variable.split(|b| *b == b'=').next().unwrap_or_default().to_owned();
        self.process.env.retain(|v| {
            v.to_bytes().strip_prefix(name.as_slice()).is_none_or(|rest| !rest.starts_with(b"="))
        });
        if let Ok(variable) = CString::new(variable) {
            self.process.env.push(variable);
        }
    }
}

/// The image's `/etc/passwd`, which may be anything: only a regular file is opened, and read to a bound. A pipe would hold
/// us for ever, a device has effects. One that is swapped in between is opened without waiting, and not read.
fn read_passwd() -> Option<Vec<u8>> {
    let regular = |fd: &OwnedFd| {
        let stat = rustix::fs::fstat(fd).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(())
    };
    let open = |flags: OFlags| rustix::fs::open("/etc/passwd", flags | OFlags::CLOEXEC, Mode::empty()).ok();
    regular(&open(OFlags::PATH)?)?;
    let file = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    regular(&file)?;
    let mut text = Vec::new();
    std::fs::File::from(file).take(MAX_PASSWD).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The home directory of `uid` in the text of a passwd file.
fn home_of(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    passwd.split(|b| *b == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let id: u32 = std::str::from_utf8(fields.get(2)?).ok()?.parse().ok()?;
        (id == uid).then(|| fields.get(5).copied()).flatten().filter(|home| !home.is_empty())
    })
}

/// Go's `exec.LookPath`: a name with a slash is a path, another is searched; the texts are what tools match.
fn look_path(name: &CStr, path: Option<&[u8]>) -> Result<CString, String> {
    let bytes = name.to_bytes();
    if bytes.contains(&b'/') {
        let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
        return executable(path).map(|()| name.to_owned()).map_err(|e| match e {
            Errno::ACCESS => "permission denied".to_owned(),
            e => format!("stat {}: {}", path.display(), errno_text(e.raw_os_error())),
        });
    }
    for dir in path.unwrap_or_default().split(|b| *b == b':') {
        let dir = if dir.is_empty() { b"." } else { dir };
        let candidate: PathBuf =
            Path::new(std::ffi::OsStr::from_bytes(dir)).join(std::ffi::OsStr::from_bytes(bytes));
        if executable(&candidate).is_ok() {
            return CString::new(candidate.into_os_string().into_vec()).map_err(|e| e.to_string());
        }
    }
    Err("executable file not found in $PATH".to_owned())
}

fn executable(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ACCESS);
    }
    match rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A file system that says nothing about execution: the mode has to do.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => Err(Errno::ACCESS),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_up_as_go_does() {
        assert_eq!(look_path(c"sh", Some(b"/nowhere:/bin")), Ok(c"/bin/sh".to_owned()));
        assert_eq!(
            look_path(c"no-such", Some(b"/bin")),
            Err("executable file not found in $PATH".to_owned())
        );
        assert_eq!(look_path(c"/no/such", None), Err("stat /no/such: no such file or directory".to_owned()));
        assert_eq!(look_path(c"/etc/passwd", None), Err("permission denied".to_owned()));
        assert_eq!(look_path(c"/etc", None), Err("permission denied".to_owned()));
    }

    #[test]
    fn home_comes_from_passwd() {
        let text = b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv:\nbad\n";
        assert_eq!(home_of(text, 1000), Some(&b"/srv"[..]));
        assert_eq!(home_of(text, 1), None);
    }
}
