//! The pod's init: the first process of a shared PID namespace.

use std::sync::Arc;

use super::Error;
use crate::daemon::Daemon;
use crate::record::{Entry, Sandbox};

/// Starts it where the pod shares its PID namespace.
pub(super) async fn start(_daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) -> Result<(), Error> {
    if entry.read().pidns.is_none() {
        return Ok(());
    }
    Ok(entry.update(|s| s.pidns = None)?)
}

/// Ends it.
pub(super) async fn stop(_daemon: &Arc<Daemon>, _entry: &Entry<Sandbox>) -> Result<(), Error> {
    Ok(())
}
