//! `coracled` over its socket: what a kubelet and crictl ask of the image service, and how the daemon starts and ends.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_integration::images::{self, Registry};
use coracle_integration::{privilege, require_root, runtime, wait};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::*;
use tokio::net::UnixStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

struct Daemon {
    process: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("run/coracled.sock");
        let process = command(directory, &socket).spawn().unwrap();
        let daemon = Self { process, socket };
        assert!(wait::until(wait::PATIENCE, || {
            std::os::unix::net::UnixStream::connect(&daemon.socket).is_ok()
        }));
        daemon
    }

    async fn channel(&self) -> Channel {
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://coracled").connect_with_connector(connect).await.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(directory: &Path, socket: &Path) -> Command {
    let mut command = Command::new(runtime::built("coracled"));
    command.arg("--root").arg(directory.join("root")).arg("--state").arg(directory.join("run"));
    command.arg("--socket").arg(socket).stdin(Stdio::null()).env("RUST_LOG", "warn");
    command
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.into(), ..ImageSpec::default() })
}

fn registry_is_missing() -> bool {
    let missing =
        ["docker-registry", "skopeo", "busybox"].into_iter().any(|p| privilege::program(p).is_none());
    if missing {
        privilege::record_skip(&privilege::test_name(), "needs docker-registry, skopeo and busybox");
    }
    missing
}

#[test]
fn an_image_is_pulled_shown_and_removed() {
    require_root!();
    if registry_is_missing() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start(directory.path()).unwrap();
    let busybox = images::busybox_layer(directory.path()).unwrap();
    let archive = images::archive(directory.path(), "app", &[&busybox]).unwrap();
    let name = registry.push(&archive, "app", &[]).unwrap();
    let daemon = Daemon::start(directory.path());
    block_on(async {
        let mut client = ImageServiceClient::new(daemon.channel().await);
        let absent = ImageStatusRequest { image: spec(&name), verbose: false };
        assert_eq!(client.image_status(absent.clone()).await.unwrap().into_inner().image, None);

        let pull = PullImageRequest { image: spec(&name), ..PullImageRequest::default() };
        let id = client.pull_image(pull).await.unwrap().into_inner().image_ref;
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        let image = client.image_status(absent).await.unwrap().into_inner().image.unwrap();
        assert_eq!((image.id.as_str(), image.repo_tags.len(), image.repo_digests.len()), (id.as_str(), 1, 1));
        assert!(image.size > 100_000, "{} bytes", image.size);
        let by_id = ListImagesRequest { filter: Some(ImageFilter { image: spec(&id) }) };
        assert_eq!(
            client.list_images(by_id).await.unwrap().into_inner().images,
            std::slice::from_ref(&image)
        );
        let all = client.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images;
        assert_eq!(all, [image]);
        let usage = client.image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
        let used = usage.image_filesystems[0].used_bytes.unwrap().value;
        assert!(used > 100_000, "{used}");
        // What a container has written is not the images', though it lies below the same root.
        let upper = directory.path().join("root/cri/containers/any/upper");
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::write(upper.join("written"), vec![1; 4 << 20]).unwrap();
        let usage = client.image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
        assert_eq!(usage.image_filesystems[0].used_bytes.unwrap().value, used);

        let remove = RemoveImageRequest { image: spec(&id) };
        client.remove_image(remove.clone()).await.unwrap();
        client.remove_image(remove).await.unwrap();
        assert!(
            client.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images.is_empty()
        );
    });
}

#[test]
fn bad_requests_have_the_right_code() {
    let directory = tempfile::tempdir().unwrap();
    require_root!();
    let daemon = Daemon::start(directory.path());
    block_on(async {
        let mut client = ImageServiceClient::new(daemon.channel().await);
        let pull = |image: &str| PullImageRequest { image: spec(image), ..PullImageRequest::default() };
        let code =
            |answer: Result<tonic::Response<PullImageResponse>, tonic::Status>| answer.unwrap_err().code();
        assert_eq!(code(client.pull_image(pull("")).await), Code::InvalidArgument);
        assert_eq!(code(client.pull_image(pull("Not A Name")).await), Code::InvalidArgument);
        let mut refused = pull("127.0.0.1:1/app:1");
        refused.auth = Some(AuthConfig { auth: "not base64".into(), ..AuthConfig::default() });
        assert_eq!(code(client.pull_image(refused).await), Code::InvalidArgument);

        let mut client = RuntimeServiceClient::new(daemon.channel().await);
        let version = client.version(VersionRequest::default()).await.unwrap().into_inner();
        assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("coracle", "v1"));
        let run = client.run_pod_sandbox(RunPodSandboxRequest::default()).await.unwrap_err();
        assert_eq!(run.code(), Code::InvalidArgument);
    });
}

#[test]
fn a_second_daemon_is_refused_and_a_killed_ones_socket_replaced() {
    require_root!();
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(directory.path());
    let second = runtime::call(command(directory.path(), &daemon.socket), directory.path(), wait::PATIENCE);
    let second = second.expect_failure();
    assert!(second.stderr.contains("another daemon"), "{}", second.stderr);
    daemon.process.kill().unwrap();
    daemon.process.wait().unwrap();
    assert!(daemon.socket.exists(), "SIGKILL leaves the socket");
    let again = Daemon::start(directory.path());
    block_on(async {
        let mut client = RuntimeServiceClient::new(again.channel().await);
        client.version(VersionRequest::default()).await.unwrap();
    });
    let terminated = Command::new("kill").arg(again.process.id().to_string()).status().unwrap();
    assert!(terminated.success());
    assert!(wait::until(Duration::from_secs(10), || !again.socket.exists()), "SIGTERM removes the socket");
}
