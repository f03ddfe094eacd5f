//! Calls to a pod's monitor, off the async threads.

use std::sync::Arc;
use std::time::Duration;

use coracle_monitor::client::Error as ClientError;
use coracle_monitor::protocol::{Reply, Request, Status};

use super::error::Error;
use crate::daemon::Daemon;

/// Longer than the monitor's own deadline of a start, signal or deletion.
pub(super) const SHORT: Duration = Duration::from_secs(70);

/// How long a creation may take: image volumes and hooks are part of it.
pub(super) const CREATION: Duration = Duration::from_secs(120);

/// One question and its answer; blocking.
pub(super) fn ask(
    daemon: &Daemon,
    sandbox: &str,
    request: &Request,
    deadline: Duration,
) -> Result<Reply, Error> {
    let answer = daemon.monitor(sandbox).request(request, deadline);
    answer.map_err(|source| Error::Monitor { sandbox: sandbox.to_owned(), source })
}

/// The same for async code.
pub(super) async fn call(daemon: &Arc<Daemon>, sandbox: &str, request: Request) -> Result<Reply, Error> {
    let (daemon, sandbox) = (Arc::clone(daemon), sandbox.to_owned());
    blocking(move || ask(&daemon, &sandbox, &request, SHORT)).await
}

/// What the monitor knows of its containers; none where it does not answer.
pub(super) async fn list(daemon: &Arc<Daemon>, sandbox: &str) -> Vec<Status> {
    match call(daemon, sandbox, Request::List).await {
        Ok(Reply::List { containers }) => containers,
        _ => Vec::new(),
    }
}

/// Runs what blocks on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => Err(Error::Panicked(panic.to_string())),
    }
}

/// Whether the monitor is there and does not know the container, or is dead: nothing of it is left to ask. One that has
/// not answered in time is not gone.
pub(super) fn is_gone(error: &Error) -> bool {
    let Error::Monitor { source, .. } = error else { return false };
    source.is_dead() || matches!(source, ClientError::Failed { kind, .. } if kind == "NotFound")
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_monitor_that_is_late_is_not_gone() {
        let gone = |kind: ErrorKind| {
            let source = ClientError::Unreachable { path: "monitor.sock".into(), source: kind.into() };
            is_gone(&Error::Monitor { sandbox: "s".into(), source })
        };
        assert!(
            gone(ErrorKind::ConnectionRefused)
                && gone(ErrorKind::ConnectionReset)
                && gone(ErrorKind::NotFound)
        );
        assert!(
            !gone(ErrorKind::WouldBlock) && !gone(ErrorKind::TimedOut) && !gone(ErrorKind::PermissionDenied)
        );
    }
}
