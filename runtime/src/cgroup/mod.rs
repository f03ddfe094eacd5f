//! (to be written)

/// Who makes and removes the container's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// We do, in the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd does, as a scope.
    Systemd,
    /// Nobody: the process stays in the caller's group.
    Disabled,
}
