//! The boundary to the kernel: the only module with `unsafe`. Typed descriptors and values in, `io::Result` out.
#![allow(unsafe_code)]

pub mod seccomp;
pub mod selfexec;
pub mod worker;
