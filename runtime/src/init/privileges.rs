//! The last part before the program: seccomp, ids, capabilities, working directory, in runc's order.
//!
//! Without no_new_privs loading a filter is privileged and comes first; with it it comes last, as close to the exec as
//! possible, so that the profile need not allow what we do in between.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use super::program::Program;
use super::{StepError, attributes, credentials, shed};
use crate::launch::channel::{Channel, Message};

/// Gives up everything that the process shall not have, and finds its program.
///
/// # Errors
/// The first step that fails.
pub fn give_up(program: &mut Program, channel: &Channel) -> Result<(), StepError> {
    let early = !program.process.no_new_privileges;
    if early {
        load_seccomp(program, channel)?;
    }
    shed::seal_descriptors(program.process.preserve_fds)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(program.process.umask));
    attributes::give_streams(program.process.uid)?;
    credentials::drop_bounding(&program.process.capabilities)?;
    // Root may pass where the user may not, the other way round on network file systems: try both.
    let entered = chdir(&program.process.cwd);
    credentials::set_ids(&program.process, program.may_set_groups)?;
    if entered == Err(Errno::ACCESS) {
        chdir(&program.process.cwd).map_err(|e| chdir_error(program, e))?;
    } else {
        entered.map_err(|e| chdir_error(program, e))?;
    }
    verify_cwd()?;
    credentials::set_capability_sets(&program.process.capabilities)?;
    program.complete_environment();
    program.find()?;
    if !early {
        load_seccomp(program, channel)?;
    }
    Ok(())
}

/// Changes the root where there is no mount namespace to do better in.
///
/// # Errors
/// The kernel's.
pub fn chroot(root: &Path) -> Result<(), StepError> {
    rustix::process::chdir(root).map_err(|e| StepError::os("change directory to", root.display(), e))?;
    rustix::process::chroot(".").map_err(|e| StepError::os("change root to", root.display(), e))
}

fn chdir(cwd: &Path) -> Result<(), Errno> {
    rustix::process::chdir(cwd)
}

fn chdir_error(program: &Program, errno: Errno) -> StepError {
    let cwd = program.process.cwd.display();
    StepError::os("chdir to cwd", format!("({:?}) set in config.json failed", cwd.to_string()), errno)
}

/// A working directory outside the root (through a leaked descriptor) would hand over the host: the kernel then names
/// it `(unreachable)`, and getcwd fails.
fn verify_cwd() -> Result<(), StepError> {
    let refused = || {
        StepError::why(
            "verify cwd",
            "",
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        )
    };
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(refused()),
        Err(e) => Err(StepError::os("verify cwd", "", e)),
    }
}

fn load_seccomp(program: &mut Program, channel: &Channel) -> Result<(), StepError> {
    let Some(filter) = program.seccomp.take() else { return Ok(()) };
    let listener = filter.load().map_err(|e| StepError::io("load seccomp filter", "", &e))?;
    if let Some(listener) = listener {
        channel.send(&Message::Listener, Some(listener.as_fd()))?;
        channel.wait_go()?;
    }
    Ok(())
}
