//! The same calls to `coracled` and to Debian's containerd: what they answer is compared field by field.
//!
//! A difference that stays is listed in `ACCEPTED` with its reason; one that is not listed fails, and so does a listed one
//! that is gone. Where containerd answers `Unknown` (an error of Go without a code) any error of ours agrees. Fields that containerd 1.6 does not know are left out of the comparison (`NEWER`).

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use coracle_integration::cri::{self, Clients, Service, block_on, connect, pod_config, run_request};
use coracle_integration::{images, privilege, require_program, require_root, wait};
use k8s_cri::v1::*;
use serde_json::{Value, json};
use tonic::{Response, Status};

/// Differences that stay, by the call's name, with the reason.
const ACCEPTED: &[(&str, &str)] = &[
    ("stop of an unknown pod", "the CRI has it idempotent, as later versions of containerd do"),
    ("stop of an unknown container", "the CRI has it idempotent, as later versions of containerd do"),
    ("create where no program is", "we look the program up at create, containerd at start"),
    ("create in a stopped pod", "FailedPrecondition: the pod is there; containerd misses its pause task"),
];

/// Fields that the CRI has gained since.
const NEWER: &[&str] =
    &["user", "image_id", "resources", "runtime_handlers", "features", "containers_statuses", "timestamp"];

/// Debian's containerd with directories of its own, in the network namespace of a [`Service`].
struct Containerd {
    socket: PathBuf,
    process: Child,
}

impl Containerd {
    fn start(service: &Service) -> Self {
        let directory = service.path("containerd");
        let configs = directory.join("net.d");
        std::fs::create_dir_all(&configs).unwrap();
        let conflist = json!({"cniVersion": "0.4.0", "name": "oracle", "plugins": [{
            "type": "bridge", "bridge": "ctd0", "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": directory.join("leases"), "ranges": [[{"subnet": "10.77.0.0/16"}]]},
        }]});
        std::fs::write(configs.join("10-oracle.conflist"), conflist.to_string()).unwrap();
        let socket = directory.join("containerd.sock");
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {socket:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"example.com/pause:v1\"\n\
             restrict_oom_score_adj = true\ndisable_apparmor = true\nnetns_mounts_under_state_dir = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = {configs:?}\n",
            directory.join("root"),
            directory.join("state"),
        );
        let file = directory.join("config.toml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = service.inside(&privilege::program("containerd").unwrap());
        command.arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().unwrap();
        let peer = Self { socket, process };
        assert!(wait::until(wait::PATIENCE, || std::os::unix::net::UnixStream::connect(&peer.socket).is_ok()));
        peer
    }

    fn import(&self, archive: &Path) {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io", "images", "import"]);
        let output = command.arg(archive).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a server answered to each call, in order.
struct Recorder {
    clients: Clients,
    logs: PathBuf,
    answers: Vec<(String, Value)>,
}

impl Recorder {
    /// Notes an answer, without what differs from run to run, and hands it on.
    fn note<T: serde::Serialize>(&mut self, name: &str, answer: Result<Response<T>, Status>) -> Option<T> {
        let (noted, answer) = match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                let mut value = serde_json::to_value(&answer).unwrap();
                normalise(&mut value, &self.logs.to_string_lossy());
                (json!({"ok": value}), Some(answer))
            }
            Err(status) => {
                // Shown where the test fails: codes are compared, words are each one's own.
                println!("{name}: {:?}: {}", status.code(), status.message());
                (json!({"code": format!("{:?}", status.code())}), None)
            }
        };
        self.answers.push((name.to_owned(), noted));
        answer
    }
}

fn normalise(value: &mut Value, logs: &str) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !NEWER.contains(&key.as_str()));
            for (key, value) in map {
                let is_id =
                    matches!(key.as_str(), "id" | "pod_sandbox_id" | "container_id" | "image_ref" | "ip");
                match value {
                    Value::String(text) if is_id && !text.is_empty() => *value = json!("<some>"),
                    Value::String(text) if text.contains(logs) => {
                        *value = json!(text.replace(logs, "<logs>"))
                    }
                    Value::Number(number) if key.ends_with("_at") && number.as_i64() != Some(0) => {
                        *value = json!("<time>");
                    }
                    // The runtime's own words.
                    Value::String(text) if key == "message" && !text.is_empty() => *value = json!("<text>"),
                    other => normalise(other, logs),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| normalise(value, logs)),
        _ => {}
    }
}

fn container(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: cri::BUSYBOX.into(), ..ImageSpec::default() }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container as i32,
                    ..NamespaceOption::default()
                }),
                ..LinuxContainerSecurityContext::default()
            }),
            ..LinuxContainerConfig::default()
        }),
        ..ContainerConfig::default()
    }
}

async fn pods(on: &mut Recorder) {
    let mut client = on.clients.runtime.clone();
    let absent = || "0123456789abcdef".repeat(4);
    on.note("run without a config", client.run_pod_sandbox(RunPodSandboxRequest::default()).await);
    let handler = RunPodSandboxRequest { runtime_handler: "no-such".into(), ..run_request(&test_pod("h")) };
    on.note("run with an unknown handler", client.run_pod_sandbox(handler).await);
    let status = |id: String| PodSandboxStatusRequest { pod_sandbox_id: id, verbose: false };
    on.note("status of an unknown pod", client.pod_sandbox_status(status(absent())).await);
    on.note("status of no pod", client.pod_sandbox_status(status(String::new())).await);
    let stop = |id: String| StopPodSandboxRequest { pod_sandbox_id: id };
    on.note("stop of an unknown pod", client.stop_pod_sandbox(stop(absent())).await);
    let remove = |id: String| RemovePodSandboxRequest { pod_sandbox_id: id };
    on.note("removal of an unknown pod", client.remove_pod_sandbox(remove(absent())).await);

    let mut config = test_pod("life");
    config.labels.insert("app".into(), "web".into());
    config.annotations.insert("note".into(), "kept".into());
    let made = on.note("run", client.run_pod_sandbox(run_request(&config)).await).unwrap();
    let id = made.pod_sandbox_id;
    on.note("status", client.pod_sandbox_status(status(id.clone())).await);
    on.note("status by a short id", client.pod_sandbox_status(status(id[..12].to_owned())).await);
    let list = |filter| ListPodSandboxRequest { filter };
    on.note("list", client.list_pod_sandbox(list(None)).await);
    let label = |value: &str| PodSandboxFilter {
        label_selector: [("app".to_owned(), value.to_owned())].into(),
        ..PodSandboxFilter::default()
    };
    on.note("list by label", client.list_pod_sandbox(list(Some(label("web")))).await);
    on.note("list by another label", client.list_pod_sandbox(list(Some(label("db")))).await);
    let by_id = PodSandboxFilter { id: absent(), ..PodSandboxFilter::default() };
    on.note("list by an unknown id", client.list_pod_sandbox(list(Some(by_id))).await);
    on.note("stop", client.stop_pod_sandbox(stop(id.clone())).await);
    on.note("status when stopped", client.pod_sandbox_status(status(id.clone())).await);
    on.note("stop again", client.stop_pod_sandbox(stop(id.clone())).await);
    on.note("removal", client.remove_pod_sandbox(remove(id.clone())).await);
    on.note("status when removed", client.pod_sandbox_status(status(id)).await);
}

async fn containers(on: &mut Recorder) {
    let mut client = on.clients.runtime.clone();
    let mut pod = test_pod("c");
    pod.log_directory = on.logs.to_string_lossy().into_owned();
    let made = on.note("run a pod", client.run_pod_sandbox(run_request(&pod)).await).unwrap();
    let sandbox = made.pod_sandbox_id;
    let create = |id: &str, config: Option<ContainerConfig>| CreateContainerRequest {
        pod_sandbox_id: id.to_owned(),
        config,
        sandbox_config: Some(pod.clone()),
    };
    let absent = "0123456789abcdef".repeat(4);
    on.note(
        "create in an unknown pod",
        client.create_container(create(&absent, Some(container("x", &["sh"])))).await,
    );
    let mut unknown = container("x", &["sh"]);
    unknown.image = Some(ImageSpec { image: "example.com/none:v1".into(), ..ImageSpec::default() });
    on.note("create of an unknown image", client.create_container(create(&sandbox, Some(unknown))).await);
    let status = |id: &str| ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    on.note("status of an unknown container", client.container_status(status(&absent)).await);
    let start = |id: &str| StartContainerRequest { container_id: id.to_owned() };
    on.note("start of an unknown container", client.start_container(start(&absent)).await);
    let stop = |id: &str| StopContainerRequest { container_id: id.to_owned(), timeout: 0 };
    on.note("stop of an unknown container", client.stop_container(stop(&absent)).await);
    let remove = |id: &str| RemoveContainerRequest { container_id: id.to_owned() };
    on.note("removal of an unknown container", client.remove_container(remove(&absent)).await);

    let config = container("ends", &["sh", "-c", "echo hello; exit 3"]);
    let made =
        on.note("create", client.create_container(create(&sandbox, Some(config.clone()))).await).unwrap();
    let id = made.container_id;
    on.note("status when created", client.container_status(status(&id)).await);
    on.note("list when created", client.list_containers(ListContainersRequest { filter: None }).await);
    let exec = |id: &str, command: &[&str]| ExecSyncRequest {
        container_id: id.to_owned(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        timeout: 10,
    };
    on.note("exec in a created one", client.exec_sync(exec(&id, &["true"])).await);
    on.note("start", client.start_container(start(&id)).await);
    ended(&mut client, &id).await;
    on.note("status when exited", client.container_status(status(&id)).await);
    on.note("start of an exited one", client.start_container(start(&id)).await);
    on.note("stop of an exited one", client.stop_container(stop(&id)).await);
    on.note("exec in an exited one", client.exec_sync(exec(&id, &["true"])).await);
    let reopen = |id: &str| ReopenContainerLogRequest { container_id: id.to_owned() };
    on.note("reopen the log of an exited one", client.reopen_container_log(reopen(&id)).await);
    on.note("removal", client.remove_container(remove(&id)).await);
    on.note("removal again", client.remove_container(remove(&id)).await);

    let made = client.create_container(create(&sandbox, Some(container("runs", &["sleep", "1000"])))).await;
    let id = on.note("create another", made).unwrap().container_id;
    on.note("start another", client.start_container(start(&id)).await);
    on.note("start twice", client.start_container(start(&id)).await);
    on.note("status when running", client.container_status(status(&id)).await);
    on.note("exec", client.exec_sync(exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 4"])).await);
    on.note("exec of no program", client.exec_sync(exec(&id, &["/no/such"])).await);
    on.note("exec of nothing", client.exec_sync(exec(&id, &[])).await);
    on.note("reopen the log", client.reopen_container_log(reopen(&id)).await);
    let running = ContainerFilter {
        state: Some(ContainerStateValue { state: ContainerState::ContainerRunning as i32 }),
        ..ContainerFilter::default()
    };
    on.note(
        "list the running",
        client.list_containers(ListContainersRequest { filter: Some(running) }).await,
    );
    on.note("stop by force", client.stop_container(stop(&id)).await);
    on.note("status when stopped", client.container_status(status(&id)).await);
    on.note("create where no program is", {
        let none = container("none", &["/no/such"]);
        client.create_container(create(&sandbox, Some(none))).await
    });
    let stop_pod = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
    on.note("stop the pod", client.stop_pod_sandbox(stop_pod).await);
    let late = client.create_container(create(&sandbox, Some(container("late", &["sh"])))).await;
    on.note("create in a stopped pod", late);
    let remove_pod = RemovePodSandboxRequest { pod_sandbox_id: sandbox };
    on.note("remove the pod", client.remove_pod_sandbox(remove_pod).await);
    on.note("status when the pod is removed", client.container_status(status(&id)).await);
}

async fn ended(client: &mut cri::RuntimeClient, id: &str) {
    let deadline = std::time::Instant::now() + wait::PATIENCE;
    loop {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let status = client.container_status(request).await.unwrap().into_inner().status.unwrap();
        if status.state() == ContainerState::ContainerExited {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{id} never ends: {status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn record(socket: &Path, logs: PathBuf) -> Vec<(String, Value)> {
    std::fs::create_dir_all(&logs).unwrap();
    let mut recorder = Recorder { clients: connect(socket).await, logs, answers: Vec::new() };
    pods(&mut recorder).await;
    containers(&mut recorder).await;
    recorder.answers
}

fn agree(ours: &Value, theirs: &Value) -> bool {
    ours == theirs || (theirs["code"] == "Unknown" && ours["code"].is_string())
}

/// A pod whose groups lie where the suite removes them.
fn test_pod(name: &str) -> PodSandboxConfig {
    let mut config = pod_config(name);
    config.linux.as_mut().unwrap().cgroup_parent =
        format!("/{}/oracle", coracle_integration::leaks::CGROUP_PARENT);
    config
}

#[test]
fn containerd_answers_the_same() {
    require_root!();
    require_program!("containerd");
    require_program!("ctr");
    if cri::is_missing_something() || !Path::new("/usr/lib/cni/bridge").exists() {
        return;
    }
    let mut service = Service::prepare("");
    service.import_busybox().unwrap();
    service.launch(&[]);
    let containerd = Containerd::start(&service);
    let work = service.path("archives");
    std::fs::create_dir_all(&work).unwrap();
    let layer = images::busybox_layer(&work).unwrap();
    for (name, command) in [("busybox", vec!["sh"]), ("pause", vec!["/bin/sleep", "1000000"])] {
        containerd.import(&images::archive_with(&work, name, &[&layer], &command).unwrap());
    }
    let (ours, theirs) = block_on(async {
        let theirs = record(&containerd.socket, service.path("logs-b")).await;
        (record(&service.socket(), service.path("logs-a")).await, theirs)
    });
    let mut complaints = Vec::new();
    for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        let accepted = ACCEPTED.iter().any(|(call, _)| call == name);
        match (agree(ours, theirs), accepted) {
            (true, false) | (false, true) => {}
            (true, true) => complaints.push(format!("{name}: the accepted difference is gone")),
            (false, false) => complaints.push(format!("{name}:\n  coracle    {ours}\n  containerd {theirs}")),
        }
    }
    assert_eq!(ours.len(), theirs.len());
    drop(containerd);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
