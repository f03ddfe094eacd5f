//! Compiles OCI seccomp profiles to classic BPF, pure and without libseccomp.

mod error;
mod filter;

use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;

pub use error::Error;
pub use filter::{Filter, SockFilter};

/// What the compiler must know of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Machine as uname(2) and Rust name it: `x86_64`, `aarch64`, `s390x`, `powerpc64`, `riscv64`, ...
    pub machine: String,
    /// Kernel release, part of the cache's key.
    pub kernel: String,
}

impl Host {
    /// The machine that this program runs on.
    #[must_use]
    pub fn current() -> Self {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Self { machine: std::env::consts::ARCH.to_owned(), kernel }
    }
}

/// Compiles `profile` for `host`.
///
/// # Errors
/// What runc refuses is refused: see [`Error`].
pub fn compile(profile: &LinuxSeccomp, host: &Host) -> Result<Filter, Error> {
    let _ = profile;
    Err(Error::HostArch(host.machine.clone()))
}

/// [`compile`] through a cache below `cache_dir`, which is created with mode 0700.
///
/// # Errors
/// Those of [`compile`]; a cache that can't be used is passed by.
pub fn compile_cached(profile: &LinuxSeccomp, host: &Host, cache_dir: &Path) -> Result<Filter, Error> {
    let _ = cache_dir;
    compile(profile, host)
}
