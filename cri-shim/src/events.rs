//! The stream of container events.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use k8s_cri::v1::ContainerEventResponse;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tonic::Status;

use crate::daemon::Daemon;

/// Every event from now on. A reader that lags too far behind is ended, and lists anew.
pub fn subscribe(
    daemon: &Arc<Daemon>,
) -> Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>> {
    let events = BroadcastStream::new(daemon.events.subscribe());
    Box::pin(events.map(|event| event.map_err(|lag| Status::data_loss(format!("events: {lag}")))))
}
