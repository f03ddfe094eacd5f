//! Pure planning: a specification and the facts of the host in, plain data in order out. Nothing here calls the kernel.
//!
//! Everything here is tested without privilege, by tables with strict equality.

pub mod devices;
mod host;
pub mod mount_options;
pub mod mounts;
pub mod namespaces;
pub mod process;
pub mod rootfs;
pub mod sysctls;

pub use host::{HostFacts, V1Hierarchy};
pub use rootfs::{RootfsPlan, plan_rootfs};

/// One thing that is wrong with the caller's configuration; all of them are reported at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Problem {
    /// Where in config.json, e.g. `mounts[3]`.
    pub field: String,
    /// What is wrong, in runc's words where tools match them.
    pub message: String,
}

impl Problem {
    /// Makes a problem of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
