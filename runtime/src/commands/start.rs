//! `start`: opens the gate at which the created container waits.

use super::container::Container;
use super::flags::Parsed;
use super::notify::Notify;
use super::{Arity, Context, Error, Verb};
use crate::launch;
use crate::state::Status;

pub const VERB: Verb = Verb {
    name: "start",
    usage: "executes the user defined process in a created container",
    arguments: "<container-id>\n\nWhere \"<container-id>\" is your name for the instance of the container that you\nare starting. The name you provide for the container instance must be unique on\nyour host.",
    description: "The start command executes the user defined process in a created container.",
    flags: &[],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let container = Container::load(context, &words.args[0])?;
    match container.status()? {
        Status::Created => open_gate(context, &container)?,
        Status::Stopped => return refuse("cannot start a container that has stopped"),
        Status::Running => return refuse("cannot start an already running container"),
        status @ (Status::Creating | Status::Paused) => {
            return refuse(&format!("cannot start a container in the {status} state"));
        }
    }
    Ok(0)
}

/// With a notification socket, `start` stays until the program is ready, and then hands its pid to the service manager.
fn open_gate(context: &Context, container: &Container) -> Result<(), Error> {
    let id = &container.record.id;
    let bound = Notify::prepared(context, id).map(Notify::bind).transpose()?;
    let pidfd = container.pidfd()?;
    launch::start(&context.root, id)?;
    if let (Some(bound), Some(pidfd)) = (bound, pidfd) {
        bound.forward(&context.log, &pidfd, container.record.init_process_pid)?;
    }
    Ok(())
}

fn refuse(text: &str) -> Result<u8, Error> {
    Err(Error::Refused(text.to_owned()))
}
