//! The connection to the daemon, and what its refusals mean to the user.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use coracle_image_store::ErrorKind;
use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tower::service_fn;

use crate::ctl::failure::Failure;

/// How long a daemon may think about a call that changes nothing.
const QUESTION: Duration = Duration::from_secs(60);

/// Largest answer: the limit that kubelet and daemon agree on.
const MAX_ANSWER: usize = 16 << 20;

/// A daemon that answers.
pub(in crate::ctl) struct Node {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Node {
    /// Connects; the failure says what to do when nobody listens.
    pub(in crate::ctl) fn connect(socket: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::io("start", &error))?;
        // Asked first without gRPC, whose error would hide the reason.
        runtime.block_on(UnixStream::connect(socket)).map_err(|error| unreachable(socket, &error))?;
        let path = socket.to_owned();
        let connector = service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .map_err(|error| refused(socket, &error.to_string()))?;
        Ok(Self { runtime, channel })
    }

    pub(super) fn cri(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(super) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Waits for the answer to a question.
    pub(super) fn ask<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(QUESTION, call).await });
        match answer {
            Ok(answer) => answer.map(Response::into_inner).map_err(|status| failure(&status)),
            Err(_) => Err(Failure::of_kind(
                ErrorKind::Unavailable,
                format!("the daemon gave no answer in {} s", QUESTION.as_secs()),
            )),
        }
    }

    /// Waits as long as the work takes: stopping, pulling, executing.
    pub(super) fn order<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(call).map(Response::into_inner).map_err(|status| failure(&status))
    }

    /// Runs anything else that is async.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// A refusal of the daemon, in its own words.
pub(super) fn failure(status: &Status) -> Failure {
    let kind = match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::Unavailable | Code::DeadlineExceeded => ErrorKind::Unavailable,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => ErrorKind::Conflict,
        _ => ErrorKind::Invalid,
    };
    let text = if status.message().is_empty() { status.code().description() } else { status.message() };
    Failure::of_kind(kind, text)
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "the socket is root's: try again as root",
        _ => {
            "is coracled running? Start it with `coracled`, or name its socket with --socket or CORACLE_SOCKET"
        }
    };
    refused(socket, &error.to_string()).with_hint(hint)
}

fn refused(socket: &Path, why: &str) -> Failure {
    Failure::of_kind(ErrorKind::Unavailable, format!("no daemon answers on {}: {why}", socket.display()))
}
