//! What every error of the store can be asked: its kind. The daemon maps kinds to gRPC codes, the commands to exit codes.
//! The words are the runtime's, with one more: a store can be corrupt.

/// The class of a failure, independent of the module that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ErrorKind {
    /// The image, layer or file named does not exist.
    NotFound,
    /// The object exists already, or its state does not allow the action.
    Conflict,
    /// The input is wrong: a reference, a manifest, a tar stream.
    Invalid,
    /// The bytes are not those that the digest promised.
    Corrupt,
    /// The kernel, the host or this build cannot do it.
    Unsupported,
    /// A limit was met: time, memory, descriptors, disk.
    Exhausted,
    /// The kernel or the registry refused for lack of rights.
    Denied,
    /// The registry or the network to it failed; a later attempt may succeed.
    Unavailable,
    /// A system call failed for another reason.
    Kernel,
}

/// Implemented by every error enum of the crate.
pub trait Kind: std::error::Error {
    /// The class of this failure.
    fn kind(&self) -> ErrorKind;

    /// What the user can do about it, where that is known.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Renders an error and its causes on one line, as `a: b: c`, without a cause that its parent's text ends with already.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl ErrorKind {
    /// The kind that an errno stands for where the context says no more.
    #[must_use]
    pub fn from_io(error: &std::io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Self::NotFound,
            Some(Errno::EXIST | Errno::BUSY | Errno::NOTEMPTY) => Self::Conflict,
            Some(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV | Errno::NOTBLK) => Self::Unsupported,
            Some(Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::DQUOT | Errno::FBIG) => {
                Self::Exhausted
            }
            Some(Errno::PERM | Errno::ACCESS | Errno::ROFS) => Self::Denied,
            _ => Self::Kernel,
        }
    }
}
