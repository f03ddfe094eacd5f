//! Runs the hooks of the configuration: in order, the state document on stdin, each with its own deadline.
//!
//! A hook's output is kept (bounded) only to be shown when it fails. A grandchild that keeps the pipes open holds nobody
//! up: the wait is for the hook itself, by pidfd.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{ErrorKind, Kind};
use crate::init::step_error::errno_text;

/// How much of each stream of a hook is kept for the error text.
const OUTPUT_LIMIT: usize = 64 << 10;

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
#[error("error running {} hook #{index}: {cause}", stage.as_str())]
pub struct Error {
    pub stage: Stage,
    pub index: usize,
    pub path: PathBuf,
    pub cause: Cause,
}

/// How a hook fails.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("fork/exec {}: {}", path.display(), errno_text(source.raw_os_error().unwrap_or(0)))]
    Spawn { path: PathBuf, source: io::Error },
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
            Cause::Spawn { source, .. } => source.raw_os_error().map_or(ErrorKind::Kernel, |e| {
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
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, inherited).map_err(|cause| Error {
            stage,
            index,
            path: hook.path().clone(),
            cause,
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &State, inherited: &[(OsString, OsString)]) -> Result<(), Cause> {
    let document = serde_json::to_vec(state).map_err(Cause::State)?;
    let timeout = hook.timeout().filter(|seconds| *seconds > 0);
    let mut child = command(hook, inherited)
        .spawn()
        .map_err(|source| Cause::Spawn { path: hook.path().clone(), source })?;
    let deadline = timeout.map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
    let ended = Conversation::new(&mut child, document).and_then(|mut talk| talk.until_exit(deadline));
    match ended {
        Ok(Some(said)) => {
            let status = child.wait().map_err(Cause::Wait)?;
            if status.success() { Ok(()) } else { Err(said.into_cause(status)) }
        }
        Ok(None) => {
            let _ = child.kill();
            let _ = child.wait();
            #[allow(clippy::cast_precision_loss)]
            Err(Cause::Timeout(timeout.unwrap_or(0) as f64))
        }
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(Cause::Wait(error))
        }
    }
}

fn command(hook: &Hook, inherited: &[(OsString, OsString)]) -> Command {
    // Without a slash the path would be looked up in PATH; the configuration's is one of the file system.
    let mut command = match hook.path().components().count() {
        1 => Command::new(PathBuf::from(".").join(hook.path())),
        _ => Command::new(hook.path()),
    };
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match hook.env().as_deref().filter(|list| !list.is_empty()) {
        Some(list) => command.envs(list.iter().filter_map(|entry| entry.split_once('='))),
        None => command.envs(inherited.iter().map(|(key, value)| (key, value))),
    };
    command
}

/// What a hook wrote, each stream cut at [`OUTPUT_LIMIT`].
#[derive(Debug, Default)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Said {
    fn into_cause(self, status: ExitStatus) -> Cause {
        use std::os::unix::process::ExitStatusExt;
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal: {}", crate::commands::signal_text(signal)),
            (None, None) => status.to_string(),
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Cause::Exit { status, stdout: text(self.stdout), stderr: text(self.stderr) }
    }
}

/// The streams of a running hook, fed and read until its pidfd says that it ended.
struct Conversation {
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    document: Vec<u8>,
    written: usize,
    said: Said,
}

impl Conversation {
    fn new(child: &mut Child, document: Vec<u8>) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        for fd in [
            stdin.as_ref().map(AsFd::as_fd),
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(Self { pidfd, stdin, stdout, stderr, document, written: 0, said: Said::default() })
    }

    /// `None` when the deadline passed first.
    fn until_exit(&mut self, limit: Option<Duration>) -> io::Result<Option<Said>> {
        let start = Instant::now();
        loop {
            let left = match limit.map(|limit| limit.checked_sub(start.elapsed())) {
                Some(None) => return Ok(None),
                Some(Some(left)) => Some(left),
                None => None,
            };
            let exited = self.wait_for_any(left)?;
            self.feed();
            let Self { stdout, stderr, said, .. } = self;
            drain(stdout, &mut said.stdout);
            drain(stderr, &mut said.stderr);
            if exited {
                return Ok(Some(std::mem::take(&mut self.said)));
            }
        }
    }

    /// Waits until the hook can be fed, said something, ended (`true`), or `left` has passed.
    fn wait_for_any(&self, left: Option<Duration>) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        fds.extend(self.stdin.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        fds.extend(self.stdout.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(!fds[0].revents().is_empty()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes what the pipe takes. A hook that does not read its stdin is fine: EPIPE ends the writing.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(&self.document[self.written..]) {
            Ok(n) => self.written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => self.written = self.document.len(),
        }
        if self.written == self.document.len() {
            self.stdin = None;
        }
    }
}

/// Reads what there is; closes at the end of the stream.
fn drain<R: Read>(stream: &mut Option<R>, into: &mut Vec<u8>) {
    let Some(reader) = stream else { return };
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer) {
            Ok(n) if n > 0 => {
                let room = OUTPUT_LIMIT.saturating_sub(into.len()).min(n);
                into.extend_from_slice(&buffer[..room]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    *stream = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        let mut hook = HookBuilder::default()
            .path("/bin/sh")
            .args(["sh", "-c", script].map(String::from).to_vec())
            .env(vec!["PATH=/usr/bin:/bin".to_owned()])
            .build()
            .unwrap();
        hook.set_timeout(timeout);
        hook
    }

    fn run_hook(script: &str, timeout: Option<i64>) -> Result<(), String> {
        let mut state = State::default();
        state.set_id("c1".to_owned());
        run(Stage::CreateRuntime, &[hook("true", None), hook(script, timeout)], &state, &[])
            .map_err(|e| e.to_string())
    }

    #[test]
    fn outcomes() {
        assert_eq!(run_hook("grep -q '\"id\":\"c1\"'", None), Ok(()));
        assert_eq!(run_hook("exec <&-; exit 0", None), Ok(()));
        assert_eq!(
            run_hook("echo out; echo err >&2; exit 3", None),
            Err("error running createRuntime hook #1: exit status 3, stdout: out\n, stderr: err\n"
                .replace("\\n", "\n"))
        );
        assert!(run_hook("kill -9 $$", None).unwrap_err().contains("signal: killed"));
        assert!(
            run_hook("exec sleep 100", Some(1)).unwrap_err().contains("ran past specified timeout of 1.0s")
        );
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_holds_nobody_up() {
        let start = Instant::now();
        assert_eq!(run_hook("sleep 2 & exit 0", None), Ok(()));
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn much_output_is_cut() {
        let text = run_hook("head -c 300000 /dev/zero | tr '\\0' x; exit 1", None).unwrap_err();
        assert!(text.len() < OUTPUT_LIMIT + 200);
    }

    #[test]
    fn without_env_the_given_one_is_inherited() {
        let mut plain = hook("test \"$A\" = b", None);
        plain.set_env(None);
        let env = [("A".into(), "b".into()), ("PATH".into(), "/usr/bin:/bin".into())];
        run(Stage::Poststop, &[plain], &State::default(), &env).unwrap();
    }
}
