//! The child's side: named steps between clone and exec.

pub mod rootfs;
pub mod step_error;

pub use step_error::StepError;
