//! `coraclectl logs`: reads the file that the container's monitor writes, as the kubelet does for `kubectl logs`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_image_store::ErrorKind;
use k8s_cri::v1::{Container, ContainerState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::logfile::{self, Line, LogFile, Stream};
use super::names::{Known, container_name};
use super::{Node, ps, timestamp};
use crate::ctl::Cli;
use crate::ctl::failure::Failure;

#[derive(clap::Args)]
#[command(after_help = "What the container wrote to standard error goes to standard error.")]
pub(in crate::ctl) struct Args {
    /// Container: its name, pod/container, or the beginning of its id; a pod of one container will do
    name: String,

    /// Go on with what is written until the container ends
    #[arg(short, long)]
    follow: bool,

    /// Only the last entries
    #[arg(short = 'n', long, value_name = "COUNT")]
    tail: Option<usize>,

    /// Only what is newer: 30s, 15m, 2h, 1d, or a time as 2026-11-25T21:00:00Z
    #[arg(long, value_name = "AGE|TIME", value_parser = since)]
    since: Option<i64>,

    /// With the time of each entry
    #[arg(short = 't', long)]
    timestamps: bool,
}

fn since(text: &str) -> Result<i64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let ago = timestamp::duration(text).map(|duration| now.saturating_sub(duration));
    ago.or_else(|| timestamp::parse(text)).ok_or_else(|| "neither an age nor a time".to_owned())
}

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node()?;
    let known = Known::load(&node)?;
    let container = known.container(&args.name)?;
    let path = path(&node, container)?;
    let in_file = |error: io::Error| Failure::io(&path, &error);
    let mut log = LogFile::open(Path::new(&path)).map_err(in_file)?;
    if let Some(count) = args.tail {
        log.seek_to_last(count).map_err(in_file)?;
    }
    let mut printer = Printer::new(args);
    let outcome = match args.follow {
        true => follow(&node, container, &path, &mut log, &mut printer)?,
        false => print_all(&mut log, &mut printer),
    };
    match outcome {
        // Nobody reads any more: `| head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(in_file(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn path(node: &Node, container: &Container) -> Result<String, Failure> {
    let path = ps::status(node, &container.id)?.log_path;
    if path.is_empty() {
        let text = format!("container {} keeps no log", container_name(container));
        return Err(Failure::of_kind(ErrorKind::NotFound, text)
            .with_hint("its pod was made without a log directory (log_directory, log_path)"));
    }
    Ok(path)
}

fn print_all(log: &mut LogFile, printer: &mut Printer) -> io::Result<()> {
    while let Some(line) = log.next_line()? {
        printer.print(&line)?;
    }
    io::stdout().flush()
}

/// Prints until the container has ended and its file has been read to the end.
fn follow(
    node: &Node,
    container: &Container,
    path: &str,
    log: &mut LogFile,
    printer: &mut Printer,
) -> Result<io::Result<()>, Failure> {
    let changes = Changes::of(Path::new(path)).map_err(|error| Failure::io(path, &error))?;
    loop {
        // Asked before reading: what was written until the end is then read in this round.
        let ended = !runs(node, container)?;
        let read = print_all(log, printer).and_then(|()| log.follow_rotation());
        match read {
            Err(error) => return Ok(Err(error)),
            Ok(true) => {}
            Ok(false) if ended => return Ok(Ok(())),
            Ok(false) => changes.wait(),
        }
    }
}

/// A created container counts: it may be started yet.
fn runs(node: &Node, container: &Container) -> Result<bool, Failure> {
    match ps::status(node, &container.id) {
        Ok(status) => Ok(status.state != ContainerState::ContainerExited as i32),
        Err(failure) if failure.is_not_found() => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Watches the log's directory: the file itself is replaced when it is rotated.
struct Changes(rustix::fd::OwnedFd);

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let kinds = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, path.parent().unwrap_or(Path::new("/")), kinds)?;
        Ok(Self(watch))
    }

    /// Until something changed; for a second at most, because the container's end is no change of the file.
    fn wait(&self) {
        let mut events = [PollFd::new(&self.0, PollFlags::IN)];
        let _ = poll(&mut events, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|count| count > 0) {}
    }
}

struct Printer {
    since: Option<i64>,
    timestamps: bool,
    /// Whether the last line of standard output, of standard error, goes on.
    goes_on: [bool; 2],
}

impl Printer {
    fn new(args: &Args) -> Self {
        Self { since: args.since, timestamps: args.timestamps, goes_on: [false; 2] }
    }

    fn print(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(line) = logfile::parse(line) else { return Ok(()) };
        if self.is_wanted(&line) {
            match line.stream {
                Stream::Stdout => self.write(&mut io::stdout().lock(), &line)?,
                Stream::Stderr => self.write(&mut io::stderr().lock(), &line)?,
            }
        }
        Ok(())
    }

    fn is_wanted(&self, line: &Line<'_>) -> bool {
        self.since.is_none_or(|since| timestamp::parse(line.time).is_none_or(|time| time >= since))
    }

    fn write(&mut self, to: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
        let goes_on = &mut self.goes_on[usize::from(line.stream == Stream::Stderr)];
        if self.timestamps && !*goes_on {
            write!(to, "{} ", line.time)?;
        }
        *goes_on = line.partial;
        to.write_all(line.text)?;
        if line.partial { to.flush() } else { to.write_all(b"\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined() {
        let mut printer = Printer { since: None, timestamps: true, goes_on: [false; 2] };
        let mut out = Vec::new();
        for line in ["T1 stdout P a", "T2 stdout P b", "T3 stdout F c", "T4 stdout F d"] {
            let line = logfile::parse(line.as_bytes()).unwrap();
            printer.write(&mut out, &line).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "T1 abc\nT4 d\n");
    }

    #[test]
    fn old_entries_are_left_out() {
        let line = |time| Line { time, stream: Stream::Stdout, partial: false, text: b"" };
        let since = timestamp::parse("2026-11-25T21:00:00Z");
        let printer = Printer { since, timestamps: false, goes_on: [false; 2] };
        assert!(!printer.is_wanted(&line("2026-11-25T20:59:59.9Z")));
        assert!(printer.is_wanted(&line("2026-11-25T21:00:00.0Z")));
    }
}
