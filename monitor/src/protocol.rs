//! Messages between the daemon and a monitor: one JSON object a seqpacket, descriptors beside it.
//!
//! A request opens a connection of its own, so that a slow one holds up no other. Version N serves clients of N and N-1.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version that this program speaks.
pub const VERSION: u32 = 1;

/// Largest message in bytes.
pub const MAX_MESSAGE: usize = 128 * 1024;

/// Most descriptors in a message.
pub const MAX_DESCRIPTORS: usize = 4;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Asks for version and pid.
    Hello { version: u32 },
    /// Creates a container from a bundle; it waits for `Start`.
    Create(Create),
    /// Starts a created container.
    Start { id: String },
    /// Runs a process in a container. Descriptors: stdin, stdout, stderr (none with a terminal).
    /// Answers `Started` (with the terminal's master where there is one), then `Exited`.
    Exec(Exec),
    /// Sends a signal to the first process, or to all.
    Signal { id: String, signal: i32, all: bool },
    /// Sets the size of a container's terminal.
    Resize { id: String, width: u16, height: u16 },
    /// Opens the log file anew (after it was renamed).
    ReopenLog { id: String },
    /// Connects to the streams: descriptors stdin, stdout, stderr. Without `stdin` the first one is not read: its end is
    /// not the end of the container's input.
    Attach {
        id: String,
        #[serde(default = "yes")]
        stdin: bool,
    },
    /// Waits until the container has exited; answers `Exited`.
    Wait { id: String },
    /// Forgets a container that has exited and removes what the runtime holds of it.
    Delete { id: String },
    /// Starts the first process of a shared PID namespace, in the namespaces pinned at these paths (`user`, `net`, `ipc`,
    /// `uts`); answers `Started`. It ends with the monitor.
    PodInit { namespaces: Vec<(String, PathBuf)> },
    /// Lists the containers.
    List,
    /// Ends the monitor; refused while a container lives.
    Shutdown,
}

/// A container to create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    pub id: String,
    /// Directory with `config.json`.
    pub bundle: PathBuf,
    /// State directory of the runtime.
    pub runtime_root: PathBuf,
    /// `cgroupfs` or `systemd`.
    #[serde(default)]
    pub systemd: bool,
    /// Give the process a pipe for stdin, else `/dev/null`.
    pub stdin: bool,
    /// Close stdin when the first attached client closes it.
    pub stdin_once: bool,
    /// The CRI log; none writes no log.
    pub log_path: Option<PathBuf>,
    /// How long the creation may take.
    pub deadline_ms: u64,
}

/// A process to run in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    pub id: String,
    pub args: Vec<String>,
    /// `NAME=value`, beside the environment of the container's process.
    #[serde(default)]
    pub env: Vec<String>,
    pub tty: bool,
    /// How long the start may take.
    pub deadline_ms: u64,
    /// Kill the process and what it has started after this time; 0 never.
    pub timeout_ms: u64,
}

const fn yes() -> bool {
    true
}

/// What a monitor answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Hello { version: u32, pid: i32 },
    Done,
    Started { pid: i32 },
    Exited(Exit),
    List { containers: Vec<Status> },
    Failed { kind: String, message: String },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, 128 + signal where it was killed.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub at: i64,
    /// Whether the kernel killed a process of the container for lack of memory.
    #[serde(default)]
    pub oom: bool,
    /// Whether the deadline of an exec ended it.
    #[serde(default)]
    pub timed_out: bool,
}

/// A container as the monitor sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub id: String,
    pub pid: i32,
    /// Nanoseconds since the epoch; 0 before `Start`.
    pub started_at: i64,
    pub exit: Option<Exit>,
}
