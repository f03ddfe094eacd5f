//! The daemons that are compared, each with directories of its own, and clients of their sockets.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{ImageSpec, PullImageRequest, VersionRequest};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::memory;

/// Sockets: short, because the length of their paths is limited.
const STATE: &str = "/run/coracle-cb";
const DEADLINE: Duration = Duration::from_secs(30);

/// All daemons, running; ended when dropped.
pub struct Daemons {
    coracled: Child,
    containerd: Child,
    pub work: PathBuf,
}

/// A daemon with one of its runtimes.
#[derive(Clone)]
pub struct Candidate {
    pub name: &'static str,
    pub handler: &'static str,
    pub runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    pub logs: PathBuf,
    daemon: u32,
    /// What is in the command lines of its monitors or shims.
    mark: String,
}

impl Daemons {
    pub fn start(work: &Path, pause: &str) -> Result<Self, String> {
        let (ours, theirs) = (Path::new(STATE).join("c"), Path::new(STATE).join("d"));
        for directory in [&ours, &theirs, &work.join("cni")] {
            std::fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        }
        write(&work.join("coracled.toml"), &coracled(work, &ours))?;
        write(&work.join("containerd.toml"), &containerd(work, &theirs, pause))?;
        write(&work.join("cni/bridge.conflist"), &conflist(work))?;
        let program = std::env::var("CORACLED").unwrap_or_else(|_| "target/release/coracled".to_owned());
        let coracled = spawn(work, "coracled", &program)?;
        let containerd = spawn(work, "containerd", "containerd")?;
        Ok(Self { coracled, containerd, work: work.to_owned() })
    }

    /// What is compared, each answering.
    pub async fn candidates(&self) -> Result<Vec<Candidate>, String> {
        let (ours, theirs) = (format!("{STATE}/c"), format!("{STATE}/d"));
        let mut found = Vec::new();
        for (name, handler, state, socket, daemon) in [
            ("coracled", "", &ours, "coracled.sock", self.coracled.id()),
            ("containerd + runc", "runc", &theirs, "containerd.sock", self.containerd.id()),
            ("containerd + crun", "crun", &theirs, "containerd.sock", self.containerd.id()),
        ] {
            let channel = connect(&Path::new(state).join(socket)).await?;
            let runtime = RuntimeServiceClient::new(channel.clone());
            let images = ImageServiceClient::new(channel);
            let logs = self.work.join("logs").join(name.replace(' ', ""));
            found.push(Candidate { name, handler, runtime, images, logs, daemon, mark: format!("{state}/") });
        }
        Ok(found)
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for process in [&mut self.coracled, &mut self.containerd] {
            if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = process.wait();
        }
        let _ = std::fs::remove_dir_all(STATE);
    }
}

impl Candidate {
    pub async fn pull(&mut self, image: &str) -> Result<(), String> {
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        let request = PullImageRequest { image: Some(spec), ..PullImageRequest::default() };
        self.images.pull_image(request).await.map_err(|e| format!("{}: pull: {}", self.name, e.message()))?;
        Ok(())
    }

    /// Proportional memory of the daemon, in bytes.
    pub fn daemon_memory(&self) -> Result<u64, String> {
        memory::of_process(self.daemon)
    }

    /// Proportional memory of the processes that are there for pods and are not of their containers.
    pub fn helper_memory(&self) -> Result<u64, String> {
        memory::of_helpers(&self.mark, self.daemon)
    }
}

fn spawn(work: &Path, name: &str, program: &str) -> Result<Child, String> {
    let log = work.join(format!("{name}.log"));
    let output = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let errors = output.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
    Command::new(program)
        .arg("--config")
        .arg(work.join(format!("{name}.toml")))
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|e| format!("{program}: {e}"))
}

async fn connect(socket: &Path) -> Result<Channel, String> {
    let end = Instant::now() + DEADLINE;
    loop {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://daemon");
        if let Ok(channel) = endpoint.connect_with_connector(connector).await {
            let mut client = RuntimeServiceClient::new(channel.clone());
            if client.version(VersionRequest::default()).await.is_ok() {
                return Ok(channel);
            }
        }
        if Instant::now() > end {
            return Err(format!("{}: no answer in {} s", socket.display(), DEADLINE.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn coracled(work: &Path, state: &Path) -> String {
    let (work, state) = (work.display(), state.display());
    format!(
        "root = \"{work}/coracle\"\nstate = \"{state}\"\nsocket = \"{state}/coracled.sock\"\nnetwork = \"embedded\"\n\
         [embedded]\nbridge = \"cb-coracle\"\nsubnet = \"10.89.0.0/16\"\n"
    )
}

fn containerd(work: &Path, state: &Path, pause: &str) -> String {
    let (work, state) = (work.display(), state.display());
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2\nroot = \"{work}/containerd\"\nstate = \"{state}\"\n[grpc]\naddress = \"{state}/containerd.sock\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{work}/opt\"\n\
         [{cri}]\nsandbox_image = \"{pause}\"\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
         stream_server_port = \"0\"\n[{cri}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{work}/cni\"\n\
         [{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [{cri}.containerd.runtimes.crun]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [{cri}.containerd.runtimes.crun.options]\nBinaryName = \"crun\"\n"
    )
}

/// What the embedded network does: a bridge, addresses, masquerading, host ports.
fn conflist(work: &Path) -> String {
    serde_json::json!({
        "cniVersion": "0.4.0", "name": "bench", "plugins": [
            {"type": "bridge", "bridge": "cb-cni", "isGateway": true, "ipMasq": true, "ipam": {
                "type": "host-local", "dataDir": work.join("ipam"),
                "ranges": [[{"subnet": "10.87.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
