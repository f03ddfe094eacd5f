//! Exec, attach and port forwarding against a real daemon, with clients of SPDY/3.1 and WebSocket.

#![allow(clippy::unwrap_used)]

mod clients;
mod ports;
mod stats;

use std::time::{Duration, Instant};

use clients::{Spdy, Ws, upgrade};
use coracle_integration::cri::{self, BUSYBOX, RuntimeClient, Service, block_on, pod_config, run_request};
use coracle_integration::{leaks, require_root, wait};
use k8s_cri::v1::*;
use tonic::Code;

/// A daemon with a pod in which one container runs.
pub struct Running {
    pub service: Service,
    pub client: RuntimeClient,
    pub pod: String,
    pub config: PodSandboxConfig,
    pub container: String,
}

impl Running {
    pub async fn start(script: &str, change: impl FnOnce(&mut ContainerConfig)) -> Self {
        let mut service = Service::prepare("");
        service.import_busybox().unwrap();
        service.launch(&[]);
        let mut client = service.runtime().await;
        let mut config = pod_config("streaming");
        config.log_directory = service.path("logs").to_string_lossy().into_owned();
        std::fs::create_dir_all(&config.log_directory).unwrap();
        let pod = client.run_pod_sandbox(run_request(&config)).await.unwrap().into_inner().pod_sandbox_id;
        let mut it = Self { service, client, pod, config, container: String::new() };
        it.container = it.run("main", script, change).await;
        it
    }

    /// Creates and starts a container of the pod; its id.
    pub async fn run(
        &mut self,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> String {
        let mut container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: BUSYBOX.into(), ..ImageSpec::default() }),
            command: vec!["sh".into(), "-c".into(), script.into()],
            working_dir: "/tmp".into(),
            envs: vec![KeyValue { key: "GIVEN".into(), value: "by the pod".into() }],
            log_path: format!("{name}.log"),
            linux: Some(own_processes()),
            ..ContainerConfig::default()
        };
        change(&mut container);
        let create = CreateContainerRequest {
            pod_sandbox_id: self.pod.clone(),
            config: Some(container),
            sandbox_config: Some(self.config.clone()),
        };
        let container_id = self.client.create_container(create).await.unwrap().into_inner().container_id;
        let start = StartContainerRequest { container_id: container_id.clone() };
        self.client.start_container(start).await.unwrap();
        container_id
    }

    async fn exec_sync(&mut self, cmd: &[&str], timeout: i64) -> Result<ExecSyncResponse, tonic::Status> {
        let cmd = cmd.iter().map(ToString::to_string).collect();
        let request = ExecSyncRequest { container_id: self.container.clone(), cmd, timeout };
        Ok(self.client.exec_sync(request).await?.into_inner())
    }

    /// The URL of a command with these streams: `i` stdin, `o` stdout, `e` stderr, `t` terminal.
    async fn exec(&mut self, script: &str, streams: &str) -> String {
        let request = ExecRequest {
            container_id: self.container.clone(),
            cmd: vec!["sh".into(), "-c".into(), script.into()],
            tty: streams.contains('t'),
            stdin: streams.contains('i'),
            stdout: streams.contains('o'),
            stderr: streams.contains('e'),
        };
        self.client.exec(request).await.unwrap().into_inner().url
    }

    async fn attach(&mut self, stdin: bool, tty: bool) -> String {
        let container_id = self.container.clone();
        let request = AttachRequest { container_id, stdin, tty, stdout: true, stderr: !tty };
        self.client.attach(request).await.unwrap().into_inner().url
    }

    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.service.path("logs/main.log")).unwrap_or_default();
        text.lines().filter_map(|l| Some(l.split_once(' ')?.1.to_owned())).collect()
    }

    pub async fn remove(mut self) {
        let id = self.pod.clone();
        self.client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await.unwrap();
        self.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).await.unwrap();
        let left = self.service.leftovers_in_the_end();
        assert!(left.is_empty(), "left: {left:#?}\nlog:\n{}", self.service.log());
    }
}

/// A PID namespace of its own.
fn own_processes() -> LinuxContainerConfig {
    let options = NamespaceOption { pid: NamespaceMode::Container as i32, ..NamespaceOption::default() };
    let security_context = Some(LinuxContainerSecurityContext {
        namespace_options: Some(options),
        ..LinuxContainerSecurityContext::default()
    });
    LinuxContainerConfig { security_context, ..LinuxContainerConfig::default() }
}

/// Whether a process with this in its command line is there (arguments are apart by NUL).
fn runs(command: &str) -> bool {
    !leaks::processes(command).is_empty()
}

fn exit_code(status: &[u8]) -> String {
    let status: serde_json::Value = serde_json::from_slice(status).expect("a status");
    match status["status"].as_str() {
        Some("Success") => "0".into(),
        _ => status["details"]["causes"][0]["message"].as_str().expect("a cause").to_owned(),
    }
}

#[test]
fn a_command_answers_with_output_and_code() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = Running::start("sleep 1000", |_| ()).await;
        let script = "echo $GIVEN $(pwd) $(id -u); echo err >&2; exit 7";
        let answer = it.exec_sync(&["sh", "-c", script], 10).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.stdout), "by the pod /tmp 0\n");
        assert_eq!((answer.stderr.as_slice(), answer.exit_code), (&b"err\n"[..], 7));
        let large = it.exec_sync(&["busybox", "head", "-c", "3000000", "/dev/zero"], 0).await.unwrap();
        assert_eq!((large.stdout.len(), large.exit_code), (3_000_000, 0));

        let before = Instant::now();
        let slow = it.exec_sync(&["sh", "-c", "sleep 7700190001 & sleep 7700290002"], 1).await.unwrap_err();
        assert_eq!(slow.code(), Code::DeadlineExceeded, "{slow}");
        assert!(before.elapsed() < Duration::from_secs(15) && !runs("7700190001"));
        // What stays in the background holds the pipe, not the answer.
        let background = it.exec_sync(&["sh", "-c", "echo up; sleep 7700390003 & exit 0"], 20).await.unwrap();
        assert_eq!((background.stdout.as_slice(), background.exit_code), (&b"up\n"[..], 0));

        let missing = it.exec_sync(&["/no/such"], 10).await.unwrap_err();
        assert!(missing.message().contains("/no/such"), "{missing}");
        let unknown = ExecSyncRequest { container_id: "00".into(), cmd: vec!["true".into()], timeout: 0 };
        assert_eq!(it.client.exec_sync(unknown).await.unwrap_err().code(), Code::NotFound);
        let stop = StopContainerRequest { container_id: it.container.clone(), timeout: 0 };
        it.client.stop_container(stop).await.unwrap();
        let stopped = it.exec_sync(&["true"], 0).await.unwrap_err();
        assert_eq!(stopped.code(), Code::FailedPrecondition, "{stopped}");
        it.remove().await;
    });
}

#[test]
fn a_command_streams_over_spdy() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = Running::start("sleep 1000", |_| ()).await;
        let url = it.exec("cat; echo err >&2; exit 3", "ioe").await;
        let mut spdy = Spdy::connect(&it.service, &url, "v4.channel.k8s.io").await;
        let error = spdy.open(&[("streamType", "error")]).await;
        let stdin = spdy.open(&[("streamType", "stdin")]).await;
        let stdout = spdy.open(&[("streamType", "stdout")]).await;
        let stderr = spdy.open(&[("streamType", "stderr")]).await;
        spdy.data(stdin, b"typed ", false).await;
        spdy.data(stdin, b"in pieces", true).await;
        let got = spdy.until_closed(&[error, stdout, stderr]).await;
        assert_eq!(
            (got[&stdout].as_slice(), got[&stderr].as_slice()),
            (&b"typed in pieces"[..], &b"err\n"[..])
        );
        assert_eq!(exit_code(&got[&error]), "3");

        // 20 MB to a client that announces no window, as those of Kubernetes.
        let url = it.exec("busybox head -c 20000000 /dev/zero", "o").await;
        let mut spdy = Spdy::connect(&it.service, &url, "v4.channel.k8s.io").await;
        let error = spdy.open(&[("streamType", "error")]).await;
        let stdout = spdy.open(&[("streamType", "stdout")]).await;
        let got = spdy.until_closed(&[error, stdout]).await;
        assert_eq!((got[&stdout].len(), exit_code(&got[&error]).as_str()), (20_000_000, "0"));

        // The first version has no status, and nothing to say of success.
        let url = it.exec("exit 9", "o").await;
        let mut spdy = Spdy::connect(&it.service, &url, "channel.k8s.io").await;
        let error = spdy.open(&[("streamType", "error")]).await;
        let stdout = spdy.open(&[("streamType", "stdout")]).await;
        let got = spdy.until_closed(&[error, stdout]).await;
        assert_eq!(String::from_utf8_lossy(&got[&error]), "command terminated with exit code 9");
        it.remove().await;
    });
}

#[test]
fn a_terminal_is_resized_over_spdy() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = Running::start("sleep 1000", |_| ()).await;
        let url = it.exec("read x; busybox stty size; echo $TERM; exit 4", "iot").await;
        let mut spdy = Spdy::connect(&it.service, &url, "v4.channel.k8s.io").await;
        let error = spdy.open(&[("streamType", "error")]).await;
        let stdin = spdy.open(&[("streamType", "stdin")]).await;
        let stdout = spdy.open(&[("streamType", "stdout")]).await;
        let resize = spdy.open(&[("streamType", "resize")]).await;
        spdy.data(resize, b"{\"Width\":91,\"Height\":33}\n", false).await;
        // The terminal echoes; when it does, the size before it has been applied or is next: a second one follows.
        spdy.data(resize, b"{\"Width\":92,\"Height\":34}\n", true).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        spdy.data(stdin, b"\n", false).await;
        let got = spdy.until_closed(&[error, stdout]).await;
        let shown = String::from_utf8_lossy(&got[&stdout]).replace('\r', "");
        assert!(shown.contains("34 92") && shown.contains("xterm"), "{shown}");
        assert_eq!(exit_code(&got[&error]), "4");
        it.remove().await;
    });
}

#[test]
fn a_command_streams_over_websockets() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = Running::start("sleep 1000", |_| ()).await;
        let url = it.exec("cat; echo err >&2; exit 3", "ioe").await;
        let mut ws = Ws::connect(&it.service, &url, "v5.channel.k8s.io").await;
        ws.bytes(0, b"typed").await;
        ws.bytes(255, &[0]).await; // the end of stdin
        let got = ws.until_closed().await;
        assert_eq!((got[&1].as_slice(), got[&2].as_slice()), (&b"typed"[..], &b"err\n"[..]));
        assert_eq!(exit_code(&got[&3]), "3");

        let url = it.exec("read x; echo got $x", "io").await;
        let mut ws = Ws::connect(&it.service, &url, "v4.base64.channel.k8s.io").await;
        ws.send("0aGkK").await; // "hi\n"
        let (mut output, mut status) = (Vec::new(), Vec::new());
        while let Some(message) = ws.next().await {
            match message[0] {
                b'1' => output.push(String::from_utf8(message[1..].to_vec()).unwrap()),
                b'3' => status.push(message[1..].to_vec()),
                other => panic!("channel {other}"),
            }
        }
        assert_eq!((output.concat().as_str(), status.len()), ("Z290IGhpCg==", 1)); // "got hi\n"
        it.remove().await;
    });
}

#[test]
fn a_client_that_goes_takes_its_command_with_it() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = Running::start("sleep 1000", |_| ()).await;
        // One client types into a command that does not read, so that its connection is held up; the other is silent.
        let url = it.exec("sleep 7701190011 & exec sleep 7701290012", "io").await;
        let mut spdy = Spdy::connect(&it.service, &url, "v4.channel.k8s.io").await;
        spdy.open(&[("streamType", "error")]).await;
        let stdin = spdy.open(&[("streamType", "stdin")]).await;
        spdy.open(&[("streamType", "stdout")]).await;
        let url = it.exec("exec sleep 7701390013", "o").await;
        let ws = Ws::connect(&it.service, &url, "v4.channel.k8s.io").await;
        assert!(wait::until(wait::PATIENCE, || ["7701190011", "7701290012", "7701390013"]
            .iter()
            .all(|n| runs(n))));
        static MUCH: [u8; 20_000] = [b'x'; 20_000];
        for _ in 0..3 {
            spdy.data(stdin, &MUCH, false).await;
        }
        drop((spdy, ws));
        let gone = || ["7701190011", "7701290012", "7701390013"].iter().all(|n| !runs(n));
        for _ in 0..300 {
            if gone() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(gone());
        it.remove().await;
    });
}

#[test]
fn attached_clients_see_and_type_and_the_log_has_it_all() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = Running::start("while read x; do echo got $x; [ $x = end ] && exit 5; done", |c| {
            c.stdin = true;
        })
        .await;
        let url = it.attach(false, false).await;
        let mut watcher = Ws::connect(&it.service, &url, "v4.channel.k8s.io").await;
        let url = it.attach(true, false).await;
        let mut spdy = Spdy::connect(&it.service, &url, "v4.channel.k8s.io").await;
        let error = spdy.open(&[("streamType", "error")]).await;
        let stdin = spdy.open(&[("streamType", "stdin")]).await;
        let stdout = spdy.open(&[("streamType", "stdout")]).await;
        let stderr = spdy.open(&[("streamType", "stderr")]).await;
        assert_eq!(watcher.next().await.unwrap(), [1], "the server says that the connection stands");
        spdy.data(stdin, b"one\n", false).await;
        assert!(wait::until(wait::PATIENCE, || it.log() == ["stdout F got one"]), "{:?}", it.log());
        spdy.data(stdin, b"end\n", false).await;
        let got = spdy.until_closed(&[error, stdout, stderr]).await;
        assert!(String::from_utf8_lossy(&got[&stdout]).ends_with("got end\n"));
        assert_eq!(exit_code(&got[&error]), "0");
        let seen = watcher.until_closed().await;
        assert_eq!(seen[&1], b"got one\ngot end\n");
        assert_eq!(it.log(), ["stdout F got one", "stdout F got end"]);
        it.remove().await;
    });
}

async fn status(it: &Running, url: &str, headers: &[(&str, &str)]) -> String {
    let head = upgrade(&it.service, url, headers).await.1;
    head.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn tokens_are_good_once_and_requests_are_checked() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = Running::start("sleep 1000", |_| ()).await;
        let url = it.exec("true", "o").await;
        let spdy = [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v4.channel.k8s.io")];
        assert_eq!(status(&it, &url, &[]).await, "400", "no upgrade");
        let unknown = [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", "v99.channel.k8s.io")];
        assert_eq!(status(&it, &url, &unknown).await, "403");
        assert_eq!(
            status(&it, &url.replace("/exec/", "/attach/"), &spdy).await,
            "404",
            "a token of another kind"
        );
        assert_eq!(status(&it, &url, &spdy).await, "404", "which spends it");
        let url = it.exec("true", "o").await;
        assert_eq!(status(&it, &url, &spdy).await, "101");
        assert_eq!(status(&it, &url, &spdy).await, "404");
        let id = it.container.clone();
        let both = ExecRequest {
            container_id: id,
            cmd: vec!["sh".into()],
            tty: true,
            stdin: false,
            stdout: true,
            stderr: true,
        };
        assert_eq!(it.client.exec(both).await.unwrap_err().code(), Code::InvalidArgument);
        it.remove().await;
    });
}
