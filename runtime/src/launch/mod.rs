//! The parent's side of a container's start: from a loaded specification to a process that waits at its start gate.
//!
//! ```text
//! create: facts → plan → open handles → cgroup → clone3 → id maps → [mounted] devices, hooks → [ready] record
//! start:  open the exec fifo (the child's write end answers) → poststart hooks
//! exec:   open namespaces → clone3 into the cgroup → joins → [ready] → execve
//! ```
//! Errors of the child arrive as [`crate::init::StepError`] over a seqpacket socket; its death is seen on its pidfd.

pub mod channel;
mod create;
mod deliver;
mod exec;
mod foreground;
mod group;
mod handles;
mod handshake;
mod idmap;
mod request;
mod sources;
mod spawn;
mod start;
mod terminal;

use std::path::Path;

use oci_spec::runtime::{Hook, LinuxSeccomp, Spec};

pub use create::listen_fds;
pub use foreground::{Foreground, wait_foreground};
pub use request::{CreateRequest, Created, Error, ExecRequest, Execed, Held, Stdio};

use crate::hooks::Stage;
use crate::init::StepError;
use crate::seccomp;

/// The cache of compiled seccomp programs, beside the containers' directories.
pub const CACHE_DIR: &str = ".seccomp";

/// Creates the container of `req`: afterwards its init waits at the start gate and the record is on disk.
///
/// # Errors
/// See [`Error`]; nothing is left of a container that could not be created.
pub fn create(req: &CreateRequest) -> Result<Created, Error> {
    create::create(req).map(|(created, _)| created)
}

/// [`create`], with the container's lock and record in hand afterwards.
///
/// # Errors
/// As for [`create`].
pub fn create_held(req: &CreateRequest) -> Result<(Created, Held), Error> {
    create::create(req)
}

/// [`start`] of a container that was just created: nothing is looked up again.
///
/// # Errors
/// As for [`start`].
pub fn start_held(held: &Held, created: &Created) -> Result<(), Error> {
    start::open(&held.dir, &held.record, &created.pidfd)
}

/// Opens the start gate of container `id` below the state directory `root` and runs its poststart hooks.
///
/// # Errors
/// The container is not in the created state; a hook failed, and then the container is killed.
pub fn start(root: &Path, id: &str) -> Result<(), Error> {
    start::start(root, id)
}

/// Runs another process in a container.
///
/// # Errors
/// The container does not run or is paused; the process can't be started, and then nothing of it is left.
pub fn exec(req: &ExecRequest) -> Result<Execed, Error> {
    exec::exec(req)
}

fn compile_seccomp(profile: &LinuxSeccomp, root: &Path) -> Result<seccomp::Filter, Error> {
    let cache = root.join(CACHE_DIR);
    seccomp::compile_cached(profile, &seccomp::Host::current(), &cache)
        .map_err(|e| StepError::why("compile seccomp profile", "", e).into())
}

fn hooks_of(spec: &Spec, stage: Stage) -> Vec<Hook> {
    let Some(hooks) = spec.hooks() else { return Vec::new() };
    #[allow(deprecated)]
    let list = match stage {
        Stage::Prestart => hooks.prestart(),
        Stage::CreateRuntime => hooks.create_runtime(),
        Stage::CreateContainer => hooks.create_container(),
        Stage::StartContainer => hooks.start_container(),
        Stage::Poststart => hooks.poststart(),
        Stage::Poststop => hooks.poststop(),
    };
    list.clone().unwrap_or_default()
}
