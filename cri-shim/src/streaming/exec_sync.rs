//! `ExecSync`: a command, its output and its exit code in one answer. Probes and lifecycle hooks are these.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_cri::v1::{ExecSyncRequest, ExecSyncResponse};

use super::descriptor::Descriptor;
use super::error::Error;
use super::process::{self, Command};
use crate::daemon::Daemon;

/// Most bytes of both outputs together: the kubelet refuses larger messages. What is more is read and dropped, so that the
/// process does not wait.
const MAX_OUTPUT: usize = (16 << 20) - 4096;

/// How long the outputs are read after the exit, while something in the background holds them.
const DRAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(daemon: &Daemon, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
    if request.cmd.is_empty() {
        return Err(Error::Invalid("exec: cmd is empty"));
    }
    let container = process::running(daemon, &request.container_id)?;
    let limit = u64::try_from(request.timeout).ok().filter(|s| *s > 0).map(Duration::from_secs);
    let command =
        Command { args: request.cmd, stdout: true, stderr: true, timeout: limit, ..Command::default() };
    let mut process = process::start(daemon, &container, command).await?;
    let left = AtomicUsize::new(MAX_OUTPUT);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = {
        let (out, err) = (process.stdout.as_deref(), process.stderr.as_deref());
        let outputs =
            async { tokio::join!(collect(out, &mut stdout, &left), collect(err, &mut stderr, &left)) };
        let mut outputs = std::pin::pin!(outputs);
        let mut ended = false;
        let exit = loop {
            tokio::select! {
                exit = process.life.exit() => break exit?,
                _ = &mut outputs, if !ended => ended = true,
            }
        };
        if !ended {
            let _ = tokio::time::timeout(DRAIN, outputs).await;
        }
        exit
    };
    match limit {
        Some(limit) if exit.timed_out => Err(Error::Timeout { id: container.id, limit }),
        _ => Ok(ExecSyncResponse { stdout, stderr, exit_code: exit.code }),
    }
}

/// Reads to the end; keeps as much as is left.
async fn collect(from: Option<&Descriptor>, into: &mut Vec<u8>, left: &AtomicUsize) {
    let Some(from) = from else { return };
    while let Ok(bytes) = from.read().await {
        if bytes.is_empty() {
            return;
        }
        let take = |left: usize| left.saturating_sub(bytes.len());
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(take(n))).unwrap_or(0);
        into.extend_from_slice(&bytes[..bytes.len().min(before)]);
    }
}
