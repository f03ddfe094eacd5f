//! A file system context of the new mount API (`fsopen`), whose errors carry the kernel's own words.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::Error;

/// A context in the making.
#[derive(Debug)]
pub struct Context {
    fd: OwnedFd,
    file_system: &'static str,
}

impl Context {
    /// Begins a mount of this type; Linux 5.2.
    pub fn open(file_system: &'static str) -> Result<Self, Error> {
        let fd = rustix::mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
            Error::Mount {
                file_system,
                step: "open a context".into(),
                log: String::new(),
                source: errno.into(),
            }
        })?;
        Ok(Self { fd, file_system })
    }

    /// Sets an option that has a value.
    pub fn string(&self, key: &str, value: impl rustix::path::Arg) -> Result<(), Error> {
        let set = rustix::mount::fsconfig_set_string(self.fd.as_fd(), key, value);
        set.map_err(|errno| self.error(format!("option {key}"), errno.into()))
    }

    /// Sets an option without a value.
    pub fn flag(&self, key: &str) -> Result<(), Error> {
        let set = rustix::mount::fsconfig_set_flag(self.fd.as_fd(), key);
        set.map_err(|errno| self.error(format!("option {key}"), errno.into()))
    }

    /// Sets an option to a descriptor.
    pub fn descriptor(&self, key: &str, value: BorrowedFd<'_>) -> Result<(), Error> {
        let set = rustix::mount::fsconfig_set_fd(self.fd.as_fd(), key, value);
        set.map_err(|errno| self.error(format!("option {key}"), errno.into()))
    }

    /// Makes the superblock and a mount of it that is attached nowhere.
    pub fn mount(self, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
        rustix::mount::fsconfig_create(self.fd.as_fd())
            .map_err(|errno| self.error("create".into(), errno.into()))?;
        rustix::mount::fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| self.error("mount".into(), errno.into()))
    }

    fn error(&self, step: String, source: io::Error) -> Error {
        Error::Mount { file_system: self.file_system, step, log: self.log(), source }
    }

    /// What the kernel wrote to the context: one message a read, each with a letter for its level.
    fn log(&self) -> String {
        let mut messages = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut buffer[..]) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned());
            if messages.len() == 16 {
                break;
            }
        }
        messages.join("; ")
    }
}
