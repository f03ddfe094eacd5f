//! The boundary to the kernel: the only module with `unsafe`. Typed descriptors and values in, `io::Result` out.
#![allow(unsafe_code)]

pub mod bpf;
pub mod clone;
pub mod descriptors;
pub mod keyring;
pub mod limits;
pub mod mount;
pub mod namespaces;
pub mod network;
pub mod schedule;
pub mod seccomp;
pub mod selfexec;
pub mod signal_number;
pub mod signals;
pub mod user_namespace;
pub mod worker;

use std::io;

/// Turns a system call's return value into a result.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
