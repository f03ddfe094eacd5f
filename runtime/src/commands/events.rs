//! `events`: statistics at an interval or once, and out-of-memory events, as lines of JSON.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::container::Container;
use super::flags::{Flag, FlagKind, Parsed, parse_duration};
use super::{Arity, Context, Error, Verb, group};
use crate::state::Status;

const INTERVAL: Duration = Duration::from_secs(5);

pub const VERB: Verb = Verb {
    name: "events",
    usage: "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
    arguments: "<container-id>\n\nWhere \"<container-id>\" is the name for the instance of the container.",
    description: "The events command displays information about the container. By default the\ninformation is displayed once every 5 seconds.",
    flags: &[
        Flag {
            names: &["interval"],
            kind: FlagKind::Duration,
            help: "set the stats collection interval",
            default: Some("5s"),
        },
        Flag::new(&["stats"], FlagKind::Switch, "display the container's stats then exit"),
    ],
    arity: Arity::Exactly(1),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

#[derive(serde::Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<serde_json::Value>,
}

fn run(context: &Context, words: &Parsed) -> Result<u8, Error> {
    let container = Container::load(context, &words.args[0])?;
    let interval = words.text("interval").map_or(Some(INTERVAL), parse_duration).unwrap_or_default();
    if interval.is_zero() {
        return Err(Error::Usage("duration interval must be greater than 0".to_owned()));
    }
    let id = &container.record.id;
    let Some(pidfd) = container.pidfd()?.filter(|_| !matches!(container.status(), Ok(Status::Stopped)))
    else {
        return Err(Error::Refused(format!("container with id {id} is not running")));
    };
    if words.is_on("stats") {
        print_stats(&container)?;
        return Ok(0);
    }
    watch(context, &container, &pidfd, interval)
}

fn watch(context: &Context, container: &Container, pidfd: &OwnedFd, interval: Duration) -> Result<u8, Error> {
    let mut oom = group::watch_oom(&container.record).map_err(Error::Group)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), oom.poll_fd()];
        let ready = poll(&mut fds, timeout.as_ref()).unwrap_or(0);
        let (ended, oom_ready) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if oom_ready {
            for _ in 0..oom.take() {
                print(&Event { kind: "oom", id: &container.record.id, data: None })?;
            }
        }
        if ended {
            return Ok(0);
        }
        if ready == 0 {
            next = Instant::now() + interval;
            if let Err(error) = print_stats(container) {
                context.log.error(&error.to_string());
            }
        }
    }
}

fn print_stats(container: &Container) -> Result<(), Error> {
    let data = group::stats(&container.record).map_err(Error::Group)?;
    print(&Event { kind: "stats", id: &container.record.id, data: Some(data) })
}

fn print(event: &Event<'_>) -> Result<(), Error> {
    let mut line =
        serde_json::to_string(event).map_err(|source| Error::Json { path: "event".into(), source })?;
    line.push('\n');
    std::io::stdout().write_all(line.as_bytes()).map_err(Error::io("write", "/dev/stdout"))
}
