//! `coracled` under test: a daemon with directories, a network namespace and a bridge of its own, and clients of its
//! socket. Daemons of several tests run beside each other and see nothing of the host's network.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RunPodSandboxRequest,
};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::{images, leaks, privilege, runtime, wait};

/// A client of the runtime service.
pub type RuntimeClient = RuntimeServiceClient<Channel>;

/// The image that [`Service::import_busybox`] brings.
pub const BUSYBOX: &str = "example.com/busybox:v1";

/// A daemon and what it runs in. Dropping it ends the daemon and every monitor that it left.
pub struct Service {
    directory: tempfile::TempDir,
    network: OwnedFd,
    process: Option<Child>,
    extra: String,
}

/// Runs async code of a test.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}

/// Records a skip and says so where the programs for a daemon with pods are missing.
pub fn is_missing_something() -> bool {
    let missing = ["nft", "nsenter", "busybox", "tar"].into_iter().find(|p| privilege::program(p).is_none());
    if let Some(program) = missing {
        privilege::record_skip(&privilege::test_name(), &format!("{program} is not installed"));
    }
    missing.is_some()
}

impl Service {
    /// A daemon with the embedded network.
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// The same with further lines of configuration (tables at the end) and environment.
    pub fn start_with(extra: &str, environment: &[(&str, &str)]) -> Self {
        let mut service = Self::prepare(extra);
        service.launch(environment);
        service
    }

    /// Everything but the daemon: images can be imported before [`Self::launch`].
    pub fn prepare(extra: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("coracle-cri-").tempdir().expect("directory");
        // As the default places are: root of a pod's user namespace passes through.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(directory.path(), mode).expect("chmod");
        Self { directory, network: new_network(), process: None, extra: extra.to_owned() }
    }

    /// Further lines of configuration, tables at the end.
    pub fn configure(&mut self, extra: &str) {
        extra.clone_into(&mut self.extra);
    }

    /// Starts the daemon and waits until it answers, or has died (by a fault that a test asked for).
    pub fn launch(&mut self, environment: &[(&str, &str)]) {
        let config = self.path("coracled.toml");
        let text = format!(
            "root = {:?}\nstate = {:?}\nsocket = {:?}\nnetns = {:?}\n{}{}\n\
             [embedded]\nbridge = \"cor0\"\nsubnet = \"10.88.0.0/16\"\n",
            self.path("root"),
            self.path("run"),
            self.socket(),
            self.path("netns"),
            if self.extra.contains("network =") { "" } else { "network = \"embedded\"\n" },
            self.extra
        );
        std::fs::write(&config, text).expect("configuration");
        let log = File::options().create(true).append(true).open(self.path("coracled.log")).expect("log");
        let mut command = self.inside(&runtime::built("coracled"));
        command.arg("--config").arg(config).stdin(Stdio::null()).stderr(log);
        command.env("RUST_LOG", "info").envs(environment.iter().copied());
        let mut process = command.spawn().expect("coracled");
        let socket = self.socket();
        let answered = wait::until(wait::PATIENCE, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
                || matches!(process.try_wait(), Ok(Some(_)))
        });
        assert!(answered, "no answer; its log:\n{}", self.log());
        self.process = Some(process);
    }

    /// A command in the daemon's network namespace.
    pub fn inside(&self, program: &Path) -> Command {
        let network = format!("--net=/proc/{}/fd/{}", std::process::id(), self.network.as_raw_fd());
        let mut command = Command::new("nsenter");
        command.arg(network).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread in the daemon's network namespace.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.network.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter namespace");
                work()
            });
            thread.join().expect("thread")
        })
    }

    /// Asks the daemon to end.
    pub fn terminate(&self) {
        if let Some(process) = &self.process {
            let _ = rustix::process::kill_process(Pid::from_child(process), rustix::process::Signal::TERM);
        }
    }

    /// Ends the daemon by SIGKILL; pods and monitors stay.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Waits until the daemon has ended by itself.
    pub fn wait_for_end(&mut self) -> bool {
        let Some(process) = &mut self.process else { return true };
        let ended = wait::until(wait::PATIENCE, || matches!(process.try_wait(), Ok(Some(_))));
        if ended {
            self.process = None;
        }
        ended
    }

    /// Kills the daemon and starts another one in the same directories.
    pub fn restart(&mut self) {
        self.kill();
        self.launch(&[]);
    }

    /// A path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/coracled.sock")
    }

    /// What the daemon has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("coracled.log")).unwrap_or_default()
    }

    /// Brings an image with busybox, [`BUSYBOX`]; before the daemon runs.
    pub fn import_busybox(&self) -> io::Result<()> {
        let layer = images::busybox_layer(self.directory.path())?;
        let archive = images::archive(self.directory.path(), "busybox", &[&layer])?;
        let mut command = Command::new(runtime::built("coraclectl"));
        command.arg("--root").arg(self.path("root")).arg("import").arg(archive);
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// A client of the runtime service.
    pub async fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel().await)
    }

    /// A client of the image service.
    pub async fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel().await)
    }

    async fn channel(&self) -> Channel {
        channel(&self.socket()).await
    }

    /// The same once the kernel has done its part: a dropped network namespace takes its interfaces with it a moment later.
    pub fn leftovers_in_the_end(&self) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        wait::until(std::time::Duration::from_secs(5), || {
            left = self.leftovers();
            left.is_empty()
        });
        left
    }

    /// What is left of all pods, as readable lines: mounts, pins, records, run directories, leases, interfaces, monitors.
    fn leftovers(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = self.directory.path().to_string_lossy().into_owned();
        found.extend(table.lines().filter(|line| line.contains(&*ours)).map(|line| format!("mount: {line}")));
        for place in
            ["netns", "run/pods", "run/containers", "run/runtime", "root/cri/pods", "root/cri/containers"]
        {
            // What begins with a dot there is the runtime's own (its cache of seccomp filters).
            let own = |name: &String| place == "run/runtime" && name.starts_with('.');
            let names = entries(&self.path(place)).into_iter().filter(|name| !own(name));
            found.extend(names.map(|name| format!("file: {place}/{name}")));
        }
        let leases = entries(&self.path("run/network/leases")).into_iter().filter(|name| name != "last");
        found.extend(leases.map(|name| format!("lease: {name}")));
        let daemon = self.process.as_ref().map(|p| i32::try_from(p.id()).unwrap_or(0));
        let processes = leaks::processes(&ours).into_iter().filter(|(pid, _)| Some(*pid) != daemon);
        found.extend(processes.map(|(pid, command)| format!("process {pid}: {command}")));
        let links =
            self.in_network(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default());
        let veths = links.lines().filter(|line| line.trim_start().starts_with("veth"));
        found.extend(veths.map(|line| format!("interface: {}", line.trim())));
        found
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("coracled said:\n{}", self.log());
        }
        self.kill();
        // Whatever a failed test left: monitors and containers of this directory, then their mounts.
        let ours = self.directory.path().to_string_lossy().into_owned();
        // A container's own process carries neither the directory nor its pod's monitor, but its group names the pod.
        let pods = entries(&self.path("root/cri/pods"));
        let processes = std::iter::once(&ours).chain(&pods).flat_map(|name| leaks::processes(name));
        for (pid, _) in processes {
            let pidfd = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
            if let Some(Ok(pidfd)) = pidfd {
                let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            }
        }
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let targets =
            table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|path| path.starts_with(&ours));
        for target in targets.collect::<Vec<_>>().into_iter().rev() {
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Clients of both services at a socket.
pub struct Clients {
    pub runtime: RuntimeClient,
    pub images: ImageServiceClient<Channel>,
}

/// Connects to a CRI server, ours or a peer.
pub async fn connect(socket: &Path) -> Clients {
    let channel = channel(socket).await;
    Clients { runtime: RuntimeServiceClient::new(channel.clone()), images: ImageServiceClient::new(channel) }
}

async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://cri");
    endpoint.connect_with_connector(connect).await.expect("connect to the CRI socket")
}

/// Names in a directory; none where there is no directory.
fn entries(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
}

/// A network namespace that ends with its last process and descriptor.
fn new_network() -> OwnedFd {
    let made = std::thread::spawn(|| -> io::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        coracle_runtime::sys::network::loopback_up()?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    });
    made.join().expect("thread").expect("network namespace")
}

/// A pod's configuration as a kubelet's: an own PID namespace for each container, everything else the pod's.
pub fn pod_config(name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container as i32,
                    ..NamespaceOption::default()
                }),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// RunPodSandbox of this configuration.
pub fn run_request(config: &PodSandboxConfig) -> RunPodSandboxRequest {
    RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() }
}
