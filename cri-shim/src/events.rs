//! The stream of container events.
//!
//! A reader that lags too far behind has lost events: its stream ends with an error, and it lists anew. The daemon's own end
//! ends the streams too; it does not wait for their readers.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use k8s_cri::v1::ContainerEventResponse;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::daemon::Daemon;

/// What a reader gets.
pub type Events = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

/// Every event from now on.
pub fn subscribe(daemon: &Arc<Daemon>) -> Events {
    follow(daemon.events.subscribe(), daemon.stopping.clone())
}

fn follow(events: Receiver<ContainerEventResponse>, stopping: CancellationToken) -> Events {
    Box::pin(unfold(Some((events, stopping)), |state| async {
        let (mut events, stopping) = state?;
        let next = tokio::select! {
            next = events.recv() => next,
            () = stopping.cancelled() => return None,
        };
        match next {
            Ok(event) => Some((Ok(event), Some((events, stopping)))),
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(lost)) => {
                let text =
                    format!("events: the reader is too slow, {lost} are lost; list the containers anew");
                Some((Err(Status::data_loss(text)), None))
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::sync::broadcast::Sender;

    use super::*;

    fn event(n: i64) -> ContainerEventResponse {
        ContainerEventResponse { created_at: n, ..ContainerEventResponse::default() }
    }

    #[tokio::test]
    async fn events_come_in_order_until_the_daemon_ends() {
        let (sender, stopping) = (Sender::new(4), CancellationToken::new());
        let mut events = follow(sender.subscribe(), stopping.clone());
        for n in 0..3 {
            sender.send(event(n)).expect("a reader");
        }
        for n in 0..3 {
            assert_eq!(events.next().await.expect("more").expect("an event"), event(n));
        }
        stopping.cancel();
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_lags_is_told_so_and_ended() {
        let sender = Sender::new(2);
        let mut events = follow(sender.subscribe(), CancellationToken::new());
        for n in 0..5 {
            sender.send(event(n)).expect("a reader");
        }
        let error = events.next().await.expect("an answer").expect_err("events are lost");
        assert_eq!(error.code(), tonic::Code::DataLoss);
        assert!(events.next().await.is_none());
    }
}
