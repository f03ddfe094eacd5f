//! `delete`: removes what a container left, and with `--force` the container itself; also what a cut-short `create` left.
//!
//! The order makes every step repeatable after a kill: processes, groups, poststop hooks, record, directory. As long as
//! the record is there, another `delete` starts over; a directory without a record holds nothing but itself.

use std::time::Duration;

use oci_spec::runtime::ContainerState;

use super::container::{Container, lock, pause_poll, wait_exit};
use super::flags::{Flag, FlagKind, Parsed};
use super::notify::Notify;
use super::{Arity, Context, Error, Verb, group};
use crate::hooks::{self, Stage};
use crate::state::{self, ContainerDir, Record, Status};

/// How long a killed process may take to die (runc waits as long).
const KILL_DEADLINE: Duration = Duration::from_secs(10);

pub const VERB: Verb = Verb {
    name: "delete",
    usage: "delete any resources held by the container often used with detached container",
    arguments: "<container-id>\n\nWhere \"<container-id>\" is the name for the instance of the container.",
    description: "",
    flags: &[Flag::new(
        &["force", "f"],
        FlagKind::Switch,
        "Forcibly deletes the container if it is still running (uses SIGKILL)",
    )],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let id = &words.args[0];
    let force = words.is_on("force");
    if id.is_empty() {
        return Err(Error::Usage("container id cannot be empty".to_owned()));
    }
    match delete(context, id, force) {
        Err(Error::State(state::Error::NotFound)) if force => Ok(0),
        other => other.map(|()| 0),
    }
}

/// Deletes a container that is stopped or created, or with `force` any.
pub fn delete(context: &Context, id: &str, force: bool) -> Result<(), Error> {
    crate::fault::point("delete.lock")?;
    let dir = lock(&context.store(), id)?;
    let record = match dir.load() {
        Ok(record) => record,
        Err(state::Error::HalfCreated { .. }) => {
            dir.remove()?;
            // runc too removes the directory, and says that there was no container.
            return Err(state::Error::NotFound.into());
        }
        // With --force an unreadable record must not keep the id for ever.
        Err(error @ state::Error::Corrupt { .. }) if force => {
            context.log.warn(&format!("{error}; removing the directory only"));
            return Ok(dir.remove()?);
        }
        Err(error) => return Err(error.into()),
    };
    let container = Container::of(context, record);
    let status = container.status()?;
    if !force && matches!(status, Status::Running | Status::Paused) {
        return Err(Error::Refused(format!("cannot delete container {id} that is not stopped: {status}")));
    }
    kill_all(context, &container, status)?;
    destroy(context, dir, &container.record)
}

/// What an interrupted `create` of `id` left is removed, so that a retry starts afresh. A `create` under way holds the
/// lock, and a finished one has an identity in its record: both are left alone.
pub fn reclaim_half_created(context: &Context, id: &str) -> Result<(), Error> {
    let Ok(dir) = context.store().try_lock(id) else { return Ok(()) };
    match dir.load() {
        Err(state::Error::HalfCreated { .. }) => Ok(dir.remove()?),
        Ok(record) if record.identity.is_none() => {
            context.log.warn(&format!("removing what an interrupted create of {id} left"));
            remove_group(&record)?;
            Ok(dir.remove()?)
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn kill_all(context: &Context, container: &Container, status: Status) -> Result<(), Error> {
    crate::fault::point("delete.kill")?;
    let pidfd = container.pidfd()?;
    if let Some(pidfd) = &pidfd {
        match container.signal(libc::SIGKILL) {
            Ok(()) => {}
            Err(error) => context.log.debug(&format!("kill {}: {error}", container.record.id)),
        }
        // A frozen process on cgroup v1 dies only when it thaws.
        if status == Status::Paused {
            let _ = group::freeze(&container.record, false);
        }
        // In a pid namespace of its own everything goes with init, but what `exec` put in may also be outside of it.
        let _ = group::kill(&container.record, libc::SIGKILL);
        if !wait_exit(pidfd, KILL_DEADLINE) {
            return Err(Error::Refused("container init still running".to_owned()));
        }
    }
    Ok(())
}

/// Deletes a container whose first process the caller has just reaped; `record` is as good as the one on disk, which only
/// `update` rewrites.
pub fn delete_ended(context: &Context, dir: ContainerDir, record: &Record) -> Result<(), Error> {
    destroy(context, dir, record)
}

fn destroy(context: &Context, dir: ContainerDir, record: &Record) -> Result<(), Error> {
    crate::fault::point("delete.cgroup")?;
    remove_group(record)?;
    crate::fault::point("delete.hooks")?;
    run_poststop(context, record);
    crate::fault::point("delete.state")?;
    Notify::remove(context, &record.id);
    Ok(dir.remove()?)
}

/// Processes that outlived the first one are killed; a group whose last process is dying answers EBUSY for some milliseconds.
fn remove_group(record: &Record) -> Result<(), Error> {
    const ATTEMPTS: u32 = 100;
    let mut attempt = 0;
    loop {
        match group::remove(record) {
            Ok(()) => return Ok(()),
            Err(error) if group::is_busy(&error) && attempt < ATTEMPTS => {
                attempt += 1;
                pause_poll(Duration::from_millis(u64::from(attempt.min(50))));
            }
            Err(error) => return Err(Error::Group(error)),
        }
    }
}

/// The specification: a failing poststop hook is logged, and the remaining ones and the removal go on.
fn run_poststop(context: &Context, record: &Record) {
    let Some(list) = record.spec.hooks().as_ref().and_then(|all| all.poststop().as_ref()) else { return };
    let state = record.oci_state(ContainerState::Stopped);
    for hook in list {
        if let Err(error) =
            hooks::run(Stage::Poststop, std::slice::from_ref(hook), &state, context.environment.all())
        {
            context.log.warn(&error.to_string());
        }
    }
}
