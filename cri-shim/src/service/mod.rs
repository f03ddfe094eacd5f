//! The gRPC services over a unix socket.

mod images;
mod runtime;

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_image_store::error::chain;
use coracle_image_store::layer::Choice;
use coracle_image_store::{ErrorKind, Kind, Puller, Store};
use k8s_cri::v1::image_service_server::ImageServiceServer;
use k8s_cri::v1::runtime_service_server::RuntimeServiceServer;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;

pub use images::Images;
pub use runtime::Runtime;

use crate::config::Config;
use crate::daemon::{self, Daemon};
use crate::{containers, pods, streaming};

/// How long clients may take to let go of the daemon when it is to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or the socket.
    #[error("{action} {path}: {source}")]
    Path { action: &'static str, path: PathBuf, source: io::Error },
    /// Another daemon answers at the socket.
    #[error("{path}: another daemon answers at this socket")]
    InUse { path: PathBuf },
    /// The image store.
    #[error("image store: {0}")]
    Store(String),
    /// Records, programs, the network.
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    /// The streaming server.
    #[error("streaming server: {0}")]
    Streaming(io::Error),
    /// The server ended.
    #[error("gRPC server: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Serves until `stop` resolves.
///
/// Nothing is answered before what an earlier daemon left is known: recovery is start-up.
pub async fn serve(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let listener = listen(&config.socket).await?;
    let store = Store::open(&config.root, Choice::default()).map_err(|e| Error::Store(chain(&e)))?;
    let puller = Puller::new(store).map_err(|e| Error::Store(chain(&e)))?;
    let daemon = Arc::new(Daemon::open(config, puller.clone())?);
    pods::recover(&daemon).await;
    containers::recover(&daemon).await;
    streaming::serve(&daemon).await.map_err(Error::Streaming)?;
    let config = &daemon.config;
    let stop = async {
        stop.await;
        daemon.stopping.cancel(); // streams without an end would be waited for
    };
    let patience = async {
        daemon.stopping.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tracing::info!(socket = %config.socket.display(), root = %config.root.display(), "serving");
    let served = tonic::transport::Server::builder()
        .add_service(RuntimeServiceServer::new(Runtime::new(Arc::clone(&daemon))))
        .add_service(ImageServiceServer::new(Images::new(puller)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop);
    tokio::select! {
        served = served => served?,
        () = patience => tracing::warn!("ends although clients hold their connections"),
    }
    let _ = std::fs::remove_file(&config.socket);
    Ok(())
}

/// Binds the socket, mode 0600; a socket that nobody answers is what a killed daemon left, and is replaced.
async fn listen(path: &Path) -> Result<UnixListener, Error> {
    let fail = |action| move |source| Error::Path { action, path: path.into(), source };
    if let Some(directory) = path.parent() {
        // Users of pods' user namespaces pass through it to their root file systems; the socket is root's alone.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(directory);
        made.map_err(fail("create the directory of"))?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(Error::InUse { path: path.into() });
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail("remove stale")(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail("bind"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail("chmod"))?;
    Ok(listener)
}

/// The one table from kinds of errors to gRPC codes.
pub(crate) fn status_of(error: &(impl Kind + 'static)) -> Status {
    let mut text = chain(error);
    if let Some(hint) = error.hint() {
        text = format!("{text} ({hint})");
    }
    match error.kind() {
        ErrorKind::NotFound => Status::not_found(text),
        ErrorKind::Conflict => Status::failed_precondition(text),
        ErrorKind::Invalid => Status::invalid_argument(text),
        ErrorKind::Corrupt => Status::data_loss(text),
        ErrorKind::Unsupported => Status::unimplemented(text),
        ErrorKind::Exhausted => Status::resource_exhausted(text),
        ErrorKind::Denied => Status::permission_denied(text),
        ErrorKind::Unavailable => Status::unavailable(text),
        ErrorKind::Kernel => Status::internal(text),
    }
}
