//! The child's side of a container's start: named steps walked between clone and exec.

pub mod step_error;

pub use step_error::StepError;
