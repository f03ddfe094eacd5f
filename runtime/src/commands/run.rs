//! `run`: `create` and `start` in one, in the foreground unless `--detach`.

use super::create::{
    BUNDLE, CONSOLE_SOCKET, NO_NEW_KEYRING, NO_PIVOT, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS, prepare,
};
use super::flags::{Flag, FlagKind, Parsed};
use super::notify::{Bound, Notify};
use super::{Arity, Context, Error, Verb, create, delete};
use crate::launch::{self, CreateRequest, Created, Held};
use crate::sys::worker::fork_worker;

pub const VERB: Verb = Verb {
    name: "run",
    usage: "create and run a container",
    arguments: create::VERB.arguments,
    description: "The run command creates an instance of a container for a bundle. The bundle\nis a directory with a specification file named \"config.json\" and a root\nfilesystem.",
    flags: &[
        BUNDLE,
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        Flag::new(&["detach", "d"], FlagKind::Switch, "detach from the container's process"),
        Flag::new(&["keep"], FlagKind::Switch, "do not delete the container after it exits"),
        PID_FILE,
        Flag::new(
            &["no-subreaper"],
            FlagKind::Switch,
            "disable the use of the subreaper used to reap reparented processes",
        ),
        NO_PIVOT,
        NO_NEW_KEYRING,
        PRESERVE_FDS,
    ],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: true,
    failure: 1,
    run,
};

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    run_unprefixed(context, words).map_err(|error| error.in_verb(format!("{} run", context.name)))
}

fn run_unprefixed(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let detach = words.is_on("detach");
    let request = prepare(context, words, !detach)?;
    let (created, held) = launch::create_held(&request)?;
    if !detach && words.is_on("no-subreaper") {
        let _ = rustix::process::set_child_subreaper(None);
    }
    let started = start(context, &request, &created, &held);
    // From here on other commands may have the container.
    let Held { dir, record } = held;
    let dir = dir.unlock();
    let outcome = started.and_then(|notify| finish(context, created, notify, detach));
    // An error, or the end of a foreground container, takes the container along.
    if outcome.is_err() || (!detach && !words.is_on("keep")) {
        crate::fault::point("run.delete")?;
        let deleted = match dir.relock() {
            Some(dir) if outcome.is_ok() => delete::delete_ended(context, dir, &record),
            locked => {
                drop(locked);
                delete::delete(context, &request.id, true)
            }
        };
        if let Err(error) = deleted {
            context.log.warn(&error.to_string());
        }
    }
    outcome
}

fn start(
    context: &Context,
    request: &CreateRequest,
    created: &Created,
    held: &Held,
) -> Result<Option<Bound>, Error> {
    crate::fault::point("run.start")?;
    let bound = Notify::prepared(context, &request.id).map(Notify::bind).transpose()?;
    launch::start_held(held, created)?;
    Ok(bound)
}

fn finish(context: &Context, created: Created, notify: Option<Bound>, detach: bool) -> Result<u8, Error> {
    if let Some(bound) = notify {
        forward(context, bound, &created, detach)?;
    }
    if detach {
        return Ok(0);
    }
    Ok(launch::wait_foreground(created.into())?)
}

/// In the foreground a worker forwards, because the terminal and the signals need this process.
fn forward(context: &Context, bound: Bound, created: &Created, detach: bool) -> Result<(), Error> {
    if detach {
        return bound.forward(&context.log, &created.pidfd, created.pid);
    }
    fork_worker(|_| i32::from(bound.forward(&context.log, &created.pidfd, created.pid).is_err()))
        .map(drop)
        .map_err(Error::io("fork", "notification worker"))
}
