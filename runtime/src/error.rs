//! What every error of the runtime can be asked: its kind. One table maps kinds to exit codes, the daemon's to gRPC codes.

/// The class of a failure, independent of the module that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ErrorKind {
    /// The container, file or process named does not exist.
    NotFound,
    /// The object exists already, or its state does not allow the action.
    Conflict,
    /// The caller's input is wrong: configuration, flags, profile.
    Invalid,
    /// The kernel, the host or this build cannot do it.
    Unsupported,
    /// A limit was met: time, memory, descriptors, disk.
    Exhausted,
    /// The kernel refused for lack of privilege.
    Denied,
    /// A system call failed for another reason.
    Kernel,
}

/// Implemented by every error enum of the workspace.
pub trait Kind: std::error::Error {
    /// The class of this failure.
    fn kind(&self) -> ErrorKind;
}

impl ErrorKind {
    /// The kind that an errno stands for where the context says no more.
    #[must_use]
    pub fn from_errno(errno: rustix::io::Errno) -> Self {
        use rustix::io::Errno;
        match errno {
            Errno::NOENT | Errno::SRCH | Errno::NOTDIR => Self::NotFound,
            Errno::EXIST | Errno::BUSY => Self::Conflict,
            Errno::INVAL => Self::Invalid,
            Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV => Self::Unsupported,
            Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::DQUOT => {
                Self::Exhausted
            }
            Errno::PERM | Errno::ACCESS | Errno::ROFS => Self::Denied,
            _ => Self::Kernel,
        }
    }
}
