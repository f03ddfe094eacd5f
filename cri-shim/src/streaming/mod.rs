//! Exec, attach and port forwarding.

mod descriptor;
mod error;
mod exec_sync;
mod process;
pub mod spdy;

use std::sync::Arc;

use k8s_cri::v1::*;
use tonic::Status;

use crate::daemon::Daemon;

/// Starts the streaming server.
pub async fn serve(_daemon: &Arc<Daemon>) -> std::io::Result<()> {
    Ok(())
}

/// Runs a command and answers with its output.
pub async fn exec_sync(daemon: &Arc<Daemon>, request: ExecSyncRequest) -> Result<ExecSyncResponse, Status> {
    Ok(exec_sync::run(daemon, request).await?)
}

pub async fn exec(_daemon: &Arc<Daemon>, _request: ExecRequest) -> Result<ExecResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn attach(_daemon: &Arc<Daemon>, _request: AttachRequest) -> Result<AttachResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn port_forward(
    _daemon: &Arc<Daemon>,
    _request: PortForwardRequest,
) -> Result<PortForwardResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}
