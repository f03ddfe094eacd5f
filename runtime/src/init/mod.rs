//! The child's side of a container's start: named steps walked between clone and exec.
//!
//! ```text
//! container: shed → enter namespaces → session, keyring, lo → mounts ⇄ parent → root, console, names, sysctls
//!            → labels, no_new_privs, scheduling ⇄ parent → seccomp, ids, capabilities, cwd → program → gate → exec
//! exec:      shed → enter namespaces → session, console → the same from labels on
//! ```
//! The child is a copy of a single-threaded program: it may allocate, and it knows its plan from memory.

pub mod attributes;
pub mod console;
pub mod container;
pub mod credentials;
pub mod enter;
pub mod gate;
pub mod joined;
pub mod net_devices;
pub mod privileges;
pub mod program;
pub mod rootfs;
pub mod shed;
pub mod step_error;
pub mod sysctl;

pub use step_error::StepError;

/// A fault point at one of the steps; nothing is left of it in a release build.
///
/// # Errors
/// What a test injected.
pub(crate) fn fault(name: &'static str) -> Result<(), StepError> {
    crate::fault::point(name).map_err(|injected| StepError::why(name, "", injected))
}
