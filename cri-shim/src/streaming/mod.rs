//! Exec, attach and port forwarding.

use std::sync::Arc;

use k8s_cri::v1::*;
use tonic::Status;

use crate::daemon::Daemon;

/// Starts the streaming server.
pub async fn serve(_daemon: &Arc<Daemon>) -> std::io::Result<()> {
    Ok(())
}

pub async fn exec_sync(_daemon: &Arc<Daemon>, _request: ExecSyncRequest) -> Result<ExecSyncResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
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
