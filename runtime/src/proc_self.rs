//! What procfs says of this process, read once: several plans parse the same three files.

use std::io;

use crate::small_file;

/// The texts of three files of `/proc/self`.
#[derive(Debug)]
pub struct ProcSelf {
    /// `mountinfo`, or why it can't be read.
    pub mountinfo: io::Result<String>,
    /// `cgroup`, or why it can't be read.
    pub cgroup: io::Result<String>,
    /// `uid_map`; empty without user namespaces.
    pub uid_map: String,
}

impl ProcSelf {
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        Self {
            mountinfo: small_file::read_text("/proc/self/mountinfo"),
            cgroup: small_file::read_text("/proc/self/cgroup"),
            uid_map: small_file::read_text("/proc/self/uid_map").unwrap_or_default(),
        }
    }

    /// The mounts; none where they can't be read.
    #[must_use]
    pub fn mounts(&self) -> &str {
        self.mountinfo.as_deref().unwrap_or_default()
    }

    /// The groups; none where they can't be read.
    #[must_use]
    pub fn groups(&self) -> &str {
        self.cgroup.as_deref().unwrap_or_default()
    }
}
