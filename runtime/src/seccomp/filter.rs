//! A compiled filter: the program and what its loader must know.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// One classic BPF instruction, as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a jump's condition holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A filter ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2).
    pub flags: u32,
    /// Loading gives a listener, because some rule notifies.
    pub notify: bool,
    /// Where the listener is to be sent.
    pub listener_path: Option<PathBuf>,
    /// What is sent with it.
    pub listener_metadata: Option<String>,
    /// What the compiler ignored as runc does: unknown names, architectures that this host never presents.
    pub warnings: Vec<String>,
}

impl Filter {
    /// Loads the filter into the calling thread and returns the listener if the filter notifies.
    ///
    /// Needs no_new_privs or CAP_SYS_ADMIN in the thread's user namespace; allocates nothing.
    ///
    /// # Errors
    /// seccomp(2)'s: EACCES without privilege, EINVAL for a flag that this kernel does not know.
    pub fn load(&self) -> io::Result<Option<OwnedFd>> {
        crate::sys::seccomp::set_mode_filter(&self.program, self.flags, self.notify)
    }
}
