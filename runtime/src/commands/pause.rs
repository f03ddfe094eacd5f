//! `pause` and `resume`: freezing and thawing the container's groups.

use super::container::Container;
use super::flags::Parsed;
use super::{Arity, Context, Error, Verb, group};
use crate::state::Status;

pub const PAUSE: Verb = Verb {
    name: "pause",
    usage: "pause suspends all processes inside the container",
    arguments: "<container-id>",
    description: "The pause command suspends all processes in the instance of the container.",
    flags: &[],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run: pause,
};

pub const RESUME: Verb = Verb {
    name: "resume",
    usage: "resumes all processes that have been previously paused",
    arguments: "<container-id>",
    description: "The resume command resumes all processes in the instance of the container.",
    flags: &[],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run: resume,
};

fn pause(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let container = Container::load(context, &words.args[0])?;
    match container.status()? {
        Status::Created | Status::Running => {}
        Status::Creating | Status::Paused | Status::Stopped => {
            return Err(Error::Refused("container not running".to_owned()));
        }
    }
    set_frozen(context, &container, true)
}

fn resume(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let container = Container::load(context, &words.args[0])?;
    match container.status()? {
        Status::Paused => set_frozen(context, &container, false),
        Status::Creating | Status::Created | Status::Running | Status::Stopped => {
            Err(Error::Refused("container not paused".to_owned()))
        }
    }
}

fn set_frozen(context: &Context, container: &Container, frozen: bool) -> Result<u8, Error> {
    if context.rootless {
        let verb = if frozen { "pause" } else { "resume" };
        context.log.warn(&format!("{verb} may fail if you don't have the full access to cgroups"));
    }
    group::freeze(&container.record, frozen).map_err(Error::Group)?;
    Ok(0)
}
