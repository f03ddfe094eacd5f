//! Who makes the containers: a runtime binary with runc's command line (`coracle` itself, runc, crun).
//!
//! Everything here runs inside a worker and may block; the monitor bounds it.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::wire;

/// A runtime binary and where it keeps its state.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) binary: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) systemd: bool,
    /// Directory for pid files, logs and console sockets of workers.
    pub(crate) scratch: PathBuf,
}

/// What a worker reports.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Report {
    /// The process that was made; with a terminal its master travels beside.
    Made {
        pid: i32,
    },
    Done,
    Failed {
        message: String,
    },
}

const MAX_LOG: u64 = 64 * 1024;

impl Engine {
    /// `create`; the streams become the container's, or a terminal is made and its master returned.
    pub(crate) fn create(
        &self,
        id: &str,
        bundle: &Path,
        streams: Option<[OwnedFd; 3]>,
    ) -> io::Result<(i32, Option<OwnedFd>)> {
        let mut command = self.command(id);
        command.arg("create").arg("--bundle").arg(bundle);
        self.launch(command, id, streams, &[id.into()])
    }

    pub(crate) fn start(&self, id: &str) -> io::Result<()> {
        let mut command = self.command(id);
        command.args(["start", id]);
        self.run(command, id, None)
    }

    /// `exec --detach`.
    pub(crate) fn exec(
        &self,
        key: &str,
        id: &str,
        args: &[String],
        env: &[String],
        streams: Option<[OwnedFd; 3]>,
    ) -> io::Result<(i32, Option<OwnedFd>)> {
        let mut command = self.command(key);
        command.args(["exec", "--detach"]);
        for entry in env {
            command.args(["--env", entry]);
        }
        if streams.is_none() {
            command.arg("--tty");
        }
        let mut rest = vec![id.to_owned()];
        rest.extend_from_slice(args);
        self.launch(command, key, streams, &rest)
    }

    pub(crate) fn kill(&self, id: &str, signal: i32, all: bool) -> io::Result<()> {
        let mut command = self.command(id);
        command.arg("kill");
        if all {
            command.arg("--all");
        }
        command.args([id, &signal.to_string()]);
        self.run(command, id, None)
    }

    /// `delete --force`: succeeds where nothing is left.
    pub(crate) fn delete(&self, id: &str) -> io::Result<()> {
        let mut command = self.command(id);
        command.args(["delete", "--force", id]);
        self.run(command, id, None)
    }

    fn launch(
        &self,
        mut command: Command,
        key: &str,
        streams: Option<[OwnedFd; 3]>,
        rest: &[String],
    ) -> io::Result<(i32, Option<OwnedFd>)> {
        let pid_file = self.scratch.join(format!("{key}.pid"));
        command.arg("--pid-file").arg(&pid_file);
        let console = match &streams {
            Some(_) => None,
            None => {
                // By descriptor: an address holds 107 bytes only.
                let name = format!("{}.tty", &key[..key.len().min(16)]);
                let path = self.scratch.join(&name);
                let _ = std::fs::remove_file(&path);
                let scratch = std::fs::File::open(&self.scratch)?;
                let address = format!("/proc/{}/fd/{}/{name}", std::process::id(), scratch.as_raw_fd());
                let listener = UnixListener::bind(&address)?;
                command.arg("--console-socket").arg(address);
                Some((listener, path, scratch))
            }
        };
        command.args(rest);
        self.run(command, key, streams)?;
        let pid = std::fs::read_to_string(&pid_file)?;
        let _ = std::fs::remove_file(&pid_file);
        let pid = pid.trim().parse().map_err(|_| io::Error::other(format!("pid file says {pid:?}")))?;
        let Some((listener, path, _scratch)) = console else { return Ok((pid, None)) };
        let (socket, _) = listener.accept()?;
        let _ = std::fs::remove_file(path);
        let master = wire::receive_descriptor(&socket)?;
        Ok((pid, Some(master)))
    }

    fn command(&self, key: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(self.log_path(key)).args(["--log-format", "json"]);
        if self.systemd {
            command.arg("--systemd-cgroup");
        }
        command
    }

    fn run(&self, mut command: Command, key: &str, streams: Option<[OwnedFd; 3]>) -> io::Result<()> {
        let _ = std::fs::remove_file(self.log_path(key));
        match streams {
            Some([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            None => {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let status = command
            .status()
            .map_err(|e| io::Error::new(e.kind(), format!("run {}: {e}", self.binary.display())))?;
        let log = std::fs::File::open(self.log_path(key)).ok();
        let _ = std::fs::remove_file(self.log_path(key));
        if status.success() {
            return Ok(());
        }
        let mut text = String::new();
        if let Some(file) = log {
            let _ = file.take(MAX_LOG).read_to_string(&mut text);
        }
        Err(io::Error::other(
            last_error(&text).unwrap_or_else(|| format!("{}: {status}", self.binary.display())),
        ))
    }

    fn log_path(&self, key: &str) -> PathBuf {
        self.scratch.join(format!("{key}.log"))
    }
}

/// The message of the last error in a runtime's JSON log.
fn last_error(log: &str) -> Option<String> {
    let entries = log.lines().rev().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let mut errors = entries.filter(|e| matches!(e["level"].as_str(), Some("error" | "fatal")));
    errors.next()?["msg"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told() {
        let log = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"first\"}\nnot json\n\
                   {\"level\":\"error\",\"msg\":\"exec: no such file\"}\n{\"level\":\"info\",\"msg\":\"x\"}\n";
        assert_eq!(last_error(log).as_deref(), Some("exec: no such file"));
        assert_eq!(last_error(""), None);
    }
}
