//! `kill`: a signal to the container's first process, or to all of them.

use super::container::Container;
use super::flags::{Flag, FlagKind, Parsed};
use super::{Arity, Context, Error, Verb, group, parse_signal};
use crate::state::Status;

pub const VERB: Verb = Verb {
    name: "kill",
    usage: "kill sends the specified signal (default: SIGTERM) to the container's init process",
    arguments: "<container-id> [signal]",
    description: "",
    flags: &[Flag::new(
        &["all", "a"],
        FlagKind::Switch,
        "send the specified signal to all processes inside the container",
    )],
    arity: Arity::Between(1, 2),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let container = Container::load(context, &words.args[0])?;
    let name = words.args.get(1).map_or("SIGTERM", String::as_str);
    let name = if name.is_empty() { "SIGTERM" } else { name };
    let Some(signal) = parse_signal(name) else {
        return Err(Error::Usage(format!("unknown signal {}", crate::log::go_quote(name))));
    };
    let status = container.status()?;
    if words.is_on("all") {
        return kill_all(&container, signal, status);
    }
    // In a pid namespace of its own, init's death takes everything along; in a shared one processes stay behind, also when
    // init is gone already.
    let shared = signal == libc::SIGKILL && !container.has_own_pid_namespace();
    if shared && group::exists(&container.record) {
        return kill_all(&container, signal, status);
    }
    if !matches!(status, Status::Created | Status::Running | Status::Paused) {
        return Err(Error::Refused("container not running".to_owned()));
    }
    container.signal(signal)?;
    // A frozen process on cgroup v1 dies only when it thaws.
    if status == Status::Paused && signal == libc::SIGKILL {
        let _ = group::freeze(&container.record, false);
    }
    Ok(0)
}

fn kill_all(container: &Container, signal: i32, status: Status) -> Result<u8, Error> {
    if !group::exists(&container.record) {
        return match status {
            Status::Stopped => Ok(0),
            _ => container.signal(signal).map(|()| 0),
        };
    }
    group::kill(&container.record, signal).map_err(Error::Group)?;
    Ok(0)
}
