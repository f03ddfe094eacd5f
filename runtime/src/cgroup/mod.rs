//! The container's control groups: version 1, version 2 and hybrid hosts, made by us or by systemd.
//!
//! `plan` decides and touches nothing: from the configuration and what [`HostCgroups`] knows it makes the directories, the
//! ordered writes of limits and the device rules. [`Cgroup`] walks that plan and later freezes, kills, measures, updates and
//! removes the group of which a record holds the paths.
//!
//! On version 2 a process is born in its group (`CLONE_INTO_CGROUP`), on version 1 the child writes itself into `tasks`,
//! with systemd the parent hands systemd the child's pid (a scope needs a process). Device rules come last, when the child
//! has made `/dev`.

mod device_program;
mod devices;
mod directory;
mod error;
mod group;
mod host;
mod life;
mod limits_v1;
mod limits_v2;
mod make;
mod oom;
mod plan;
mod scope;
mod scope_devices;
mod scope_unified;
mod stats;
mod stats_v1;
mod stats_v2;
mod systemd;
mod write;

pub use device_program::Instruction;
pub use error::Error;
pub use group::{Cgroup, FreezerState, Stats};
pub use host::HostCgroups;
pub use life::remove_all;
pub use oom::OomWatch;
pub use plan::{CgroupPlan, plan};

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
