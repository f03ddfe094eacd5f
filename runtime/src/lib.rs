//! The OCI runtime as a library: single-threaded, synchronous, no daemon.
//!
//! A command loads a bundle (`spec`), turns it and the facts of the host into a plan (`plan`, pure), and walks the plan:
//! the parent's side in `launch`, the child's in `init`. Only `sys` talks to the kernel in `unsafe` code.

pub mod cgroup;
pub mod commands;
pub mod error;
pub mod fault;
pub mod hooks;
pub mod init;
pub mod launch;
pub mod log;
pub mod plan;
pub mod proc_self;
pub mod seccomp;
pub mod small_file;
pub mod spec;
pub mod state;
pub mod sys;
