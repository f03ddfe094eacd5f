//! A runtime's program and one call of it, bounded in time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::process::{Pid, PidfdFlags};

/// `coracle` or a peer with the same command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    pub name: String,
    pub program: PathBuf,
    /// Calls that fail: what the program `deny_calls` takes as its first word.
    pub deny: Option<String>,
}

impl Runtime {
    /// The runtime under test: `coracle`, or what `CORACLE_TEST_RUNTIME` names (the suites run on runc first), where the calls
    /// of `CORACLE_TEST_DENY` fail.
    pub fn subject() -> Self {
        match std::env::var("CORACLE_TEST_RUNTIME") {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => {
                let deny = std::env::var("CORACLE_TEST_DENY").ok().filter(|what| !what.is_empty());
                Self { name: "coracle".to_owned(), program: built("coracle"), deny }
            }
        }
    }

    /// The runtime whose behaviour decides.
    pub fn oracle() -> Self {
        Self::named("runc")
    }

    /// A runtime by program name or path.
    pub fn named(name: &str) -> Self {
        let program =
            if name.contains('/') { Some(PathBuf::from(name)) } else { crate::privilege::program(name) };
        let short = Path::new(name).file_name().map_or(name.into(), |name| name.to_string_lossy());
        Self { name: short.into_owned(), program: program.unwrap_or_else(|| name.into()), deny: None }
    }

    /// A call of it without arguments and input.
    pub fn command(&self) -> Command {
        let Some(what) = &self.deny else { return quiet(&self.program) };
        let mut command = quiet(built("deny_calls"));
        command.arg(what).arg(&self.program);
        command
    }

    pub fn is_coracle(&self) -> bool {
        self.name == "coracle"
    }
}

/// A program that cargo built beside this test: `CORACLE_BIN_DIR`, else the directory above `deps/`.
pub fn built(name: &str) -> PathBuf {
    if let Some(directory) = std::env::var_os("CORACLE_BIN_DIR") {
        return PathBuf::from(directory).join(name);
    }
    let me = std::env::current_exe().expect("own path");
    me.ancestors().nth(2).expect("target directory").join(name)
}

/// What a call gave back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    /// None when a signal ended it or it ran into the deadline.
    pub code: Option<i32>,
    pub timed_out: bool,
}

impl Outcome {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Panics with everything that was said unless the call succeeded; the output.
    #[track_caller]
    pub fn expect_success(self) -> String {
        assert!(self.success(), "expected success: {self:#?}");
        self.stdout
    }

    #[track_caller]
    pub fn expect_failure(self) -> Self {
        assert!(!self.success() && !self.timed_out, "expected a failure: {self:#?}");
        self
    }
}

/// Runs `command` with its output in files of `directory`, at most for `deadline`.
///
/// Files and not pipes: a detached container keeps its output open, and a pipe's end would never come.
pub fn call(mut command: Command, directory: &Path, deadline: Duration) -> Outcome {
    let out = tempfile::Builder::new().prefix("call-").tempdir_in(directory).expect("directory of a call");
    let create = |name: &str| File::create(out.path().join(name)).expect("output file");
    command.stdout(create("stdout")).stderr(create("stderr"));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    let status = wait(&mut child, deadline);
    let read = |name: &str| {
        let bytes = std::fs::read(out.path().join(name)).expect("output");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Outcome {
        stdout: read("stdout"),
        stderr: read("stderr"),
        code: status.and_then(|status| status.code()),
        timed_out: status.is_none(),
    }
}

/// Waits for `child`; kills it at the deadline and says None.
pub fn wait(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + deadline;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("process id");
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("pidfd of a child");
    loop {
        let mut events = [PollFd::new(&pidfd, PollFlags::IN)];
        let _ = poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 500_000_000 }));
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return Some(status);
        }
        if Instant::now() > end {
            child.kill().expect("kill a child");
            child.wait().expect("wait for a killed child");
            return None;
        }
    }
}

/// A command with no input.
pub fn quiet(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}
