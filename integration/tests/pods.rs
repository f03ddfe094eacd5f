//! Pod sandboxes over the socket: made, shown, stopped, removed, and what is left when something dies in between.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use coracle_integration::cri::{self, Service, block_on, pod_config, run_request};
use coracle_integration::require_root;
use k8s_cri::v1::*;
use tonic::Code;

fn none_left(service: &Service) {
    let left = service.leftovers_in_the_end();
    assert!(left.is_empty(), "left: {left:#?}\nlog:\n{}", service.log());
}

fn status_request(id: &str) -> PodSandboxStatusRequest {
    PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true }
}

fn stop(id: &str) -> StopPodSandboxRequest {
    StopPodSandboxRequest { pod_sandbox_id: id.into() }
}

fn remove(id: &str) -> RemovePodSandboxRequest {
    RemovePodSandboxRequest { pod_sandbox_id: id.into() }
}

#[test]
fn a_pod_is_made_shown_stopped_and_removed() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let service = Service::start();
    block_on(async {
        let mut client = service.runtime().await;
        let ready = client.status(StatusRequest::default()).await.unwrap().into_inner().status.unwrap();
        assert!(ready.conditions.iter().all(|c| c.status), "{ready:?}");

        let mut config = pod_config("one");
        config.labels.insert("app".into(), "web".into());
        let id = client.run_pod_sandbox(run_request(&config)).await.unwrap().into_inner().pod_sandbox_id;
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");

        let answer = client.pod_sandbox_status(status_request(&id)).await.unwrap().into_inner();
        let status = answer.status.unwrap();
        assert_eq!(status.state(), PodSandboxState::SandboxReady);
        assert_eq!(status.network.unwrap().ip, "10.88.0.2");
        assert!(status.created_at > 1_700_000_000_000_000_000);
        assert!(answer.info["info"].contains("/netns/coracle-"), "{}", answer.info["info"]);
        let other = LabelFilter {
            label_selector: [("app".to_owned(), "db".to_owned())].into(),
            ..Default::default()
        };
        let list = |filter| ListPodSandboxRequest { filter: Some(filter) };
        assert_eq!(client.list_pod_sandbox(list(other)).await.unwrap().into_inner().items.len(), 0);
        let prefix = LabelFilter { id: id[..13].into(), ..Default::default() };
        assert_eq!(client.list_pod_sandbox(list(prefix)).await.unwrap().into_inner().items.len(), 1);

        let again = client.run_pod_sandbox(run_request(&config)).await.unwrap_err();
        assert_eq!(again.code(), Code::AlreadyExists, "{again}");

        for _ in 0..2 {
            client.stop_pod_sandbox(stop(&id)).await.unwrap();
            let status =
                client.pod_sandbox_status(status_request(&id)).await.unwrap().into_inner().status.unwrap();
            assert_eq!(
                (status.state(), status.network.unwrap().ip.as_str()),
                (PodSandboxState::SandboxNotready, "")
            );
        }
        for _ in 0..2 {
            client.remove_pod_sandbox(remove(&id)).await.unwrap();
            let gone = client.pod_sandbox_status(status_request(&id)).await.unwrap_err();
            assert_eq!(gone.code(), Code::NotFound);
        }
    });
    none_left(&service);
}

use PodSandboxFilter as LabelFilter;

#[test]
fn the_pods_namespaces_are_its_own_and_set_up() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let service = Service::start();
    block_on(async {
        let mut client = service.runtime().await;
        let mut config = pod_config("named");
        let linux = config.linux.as_mut().unwrap();
        linux.sysctls.insert("net.core.somaxconn".into(), "123".into());
        linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        config.dns_config = Some(DnsConfig { servers: vec!["10.0.0.10".into()], ..Default::default() });
        let id = client.run_pod_sandbox(run_request(&config)).await.unwrap().into_inner().pod_sandbox_id;
        let directory = service.path("run/pods").join(&id);
        let text = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(text("resolv.conf"), "nameserver 10.0.0.10\n");
        assert_eq!(text("hostname"), "named\n");
        assert!(text("hosts").contains("10.88.0.2\tnamed"), "{}", text("hosts"));
        let inside = |command: &[&str]| inside(&service, &directory, command);
        assert_eq!(inside(&["hostname"]), "named");
        assert_eq!(inside(&["cat", "/proc/sys/net/core/somaxconn"]), "123");
        assert_eq!(inside(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]), "0");
        assert_eq!(inside(&["cat", "/proc/sys/kernel/shm_rmid_forced"]), "1");
        assert!(inside(&["ip", "-o", "link"]).contains("LOOPBACK,UP"));
        let shm = rustix::fs::statfs(directory.join("shm")).unwrap();
        assert_eq!(shm.f_type, 0x0102_1994, "a tmpfs of its own");
        client.remove_pod_sandbox(remove(&id)).await.unwrap();
    });
    none_left(&service);
}

fn inside(service: &Service, directory: &Path, command: &[&str]) -> String {
    let netns = std::fs::read_dir(service.path("netns")).unwrap().next().unwrap().unwrap().path();
    let mut nsenter = std::process::Command::new("nsenter");
    nsenter.arg(format!("--net={}", netns.display()));
    nsenter.arg(format!("--ipc={}", directory.join("ns/ipc").display()));
    nsenter.arg(format!("--uts={}", directory.join("ns/uts").display()));
    let output = nsenter.arg("--").args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_pod_on_the_hosts_network_has_no_namespace_of_its_own() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let service = Service::start();
    block_on(async {
        let mut client = service.runtime().await;
        let mut config = pod_config("host");
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        let options = security.namespace_options.as_mut().unwrap();
        options.network = NamespaceMode::Node as i32;
        options.ipc = NamespaceMode::Node as i32;
        let id = client.run_pod_sandbox(run_request(&config)).await.unwrap().into_inner().pod_sandbox_id;
        let status =
            client.pod_sandbox_status(status_request(&id)).await.unwrap().into_inner().status.unwrap();
        assert_eq!(status.network.unwrap().ip, "");
        let options = status.linux.unwrap().namespaces.unwrap().options.unwrap();
        assert_eq!((options.network(), options.ipc()), (NamespaceMode::Node, NamespaceMode::Node));
        assert!(!service.path("netns").exists() && !service.path("run/pods").join(&id).join("ns").exists());
        let mut bad = config.clone();
        bad.metadata.as_mut().unwrap().name = "bad".into();
        bad.linux.as_mut().unwrap().sysctls.insert("net.core.somaxconn".into(), "1".into());
        let refused = client.run_pod_sandbox(run_request(&bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        client.remove_pod_sandbox(remove(&id)).await.unwrap();
    });
    none_left(&service);
}

#[test]
fn a_killed_daemon_finds_its_pods_again() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let mut service = Service::start();
    let id = block_on(async {
        let mut client = service.runtime().await;
        client.run_pod_sandbox(run_request(&pod_config("kept"))).await.unwrap().into_inner().pod_sandbox_id
    });
    service.restart();
    block_on(async {
        let mut client = service.runtime().await;
        let status =
            client.pod_sandbox_status(status_request(&id)).await.unwrap().into_inner().status.unwrap();
        assert_eq!(
            (status.state(), status.network.unwrap().ip.as_str()),
            (PodSandboxState::SandboxReady, "10.88.0.2")
        );
        client.remove_pod_sandbox(remove(&id)).await.unwrap();
    });
    none_left(&service);
}

fn shared_pid(name: &str) -> PodSandboxConfig {
    let mut config = pod_config(name);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod as i32;
    config
}

/// The init's pid, from `info`.
async fn init_of(client: &mut cri::RuntimeClient, id: &str) -> i32 {
    let info = client.pod_sandbox_status(status_request(id)).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    i32::try_from(info["pid"].as_i64().unwrap()).unwrap()
}

#[test]
fn a_shared_pid_namespace_has_an_init_that_holds_nothing() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let service = Service::start();
    block_on(async {
        let mut client = service.runtime().await;
        let request = run_request(&shared_pid("shared"));
        let id = client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
        let pid = init_of(&mut client, &id).await;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        assert_eq!(field("Uid"), "65534\t65534\t65534\t65534");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
        assert!(field("NSpid").ends_with("\t1"), "{}", field("NSpid"));
        let root = std::fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count();
        assert_eq!(root, 0, "its root is empty");
        assert!(std::fs::write(format!("/proc/{pid}/root/x"), "").is_err(), "and read-only");
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert_eq!(open, 2, "its pipe and its signals");
        let owner =
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}/fd")).unwrap());
        assert_eq!(owner, 0, "not dumpable: its files in /proc are root's");
        let link = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert!(!link.exists() || link != coracle_integration::runtime::built("coracle-monitor"), "{link:?}");
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!arguments.contains("coracle-cri-"), "no path of the host: {arguments}");
        let pinned = rustix::fs::stat(service.path("run/pods").join(&id).join("ns/pid")).unwrap();
        assert_eq!(pinned.st_ino, rustix::fs::stat(format!("/proc/{pid}/ns/pid")).unwrap().st_ino);
        client.remove_pod_sandbox(remove(&id)).await.unwrap();
    });
    none_left(&service);
}

/// Kills a process and waits until the sandbox is seen not to be ready.
async fn kill_and_wait(client: &mut cri::RuntimeClient, id: &str, pid: i32, what: &str) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let deadline = std::time::Instant::now() + coracle_integration::wait::PATIENCE;
    loop {
        let answer = client.pod_sandbox_status(status_request(id)).await.unwrap().into_inner();
        if answer.status.unwrap().state() == PodSandboxState::SandboxNotready {
            assert!(answer.info["info"].contains(&format!("the pod's {what}")), "{}", answer.info["info"]);
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the death of the {what} is never seen");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[test]
fn the_death_of_init_or_monitor_is_the_sandboxs() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let service = Service::start();
    block_on(async {
        let mut client = service.runtime().await;
        for (what, field) in [("init", "pid"), ("monitor", "monitorPid")] {
            let request = run_request(&shared_pid(what));
            let id = client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
            let info = client.pod_sandbox_status(status_request(&id)).await.unwrap().into_inner().info;
            let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
            let pid = i32::try_from(info[field].as_i64().unwrap()).unwrap();
            kill_and_wait(&mut client, &id, pid, what).await;
            client.stop_pod_sandbox(stop(&id)).await.unwrap();
            client.remove_pod_sandbox(remove(&id)).await.unwrap();
        }
    });
    none_left(&service);
}

#[test]
fn a_monitor_that_died_with_the_daemon_is_found_out() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let mut service = Service::start();
    let id = block_on(async {
        let mut client = service.runtime().await;
        let request = run_request(&shared_pid("both"));
        client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    });
    service.kill();
    let mut monitors = coracle_integration::leaks::processes(&service.path("run/pods").to_string_lossy());
    monitors.retain(|(_, command)| command.contains("--directory"));
    assert_eq!(monitors.len(), 1, "{monitors:?}");
    let monitor = rustix::process::Pid::from_raw(monitors[0].0).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    service.restart();
    block_on(async {
        let mut client = service.runtime().await;
        let status =
            client.pod_sandbox_status(status_request(&id)).await.unwrap().into_inner().status.unwrap();
        assert_eq!(status.state(), PodSandboxState::SandboxNotready);
        client.remove_pod_sandbox(remove(&id)).await.unwrap();
    });
    none_left(&service);
}

/// Debian's plugins: a bridge with addresses from host-local.
#[test]
fn cni_plugins_connect_and_disconnect_a_pod() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    if !Path::new("/usr/lib/cni/bridge").exists() {
        let test = coracle_integration::privilege::test_name();
        return coracle_integration::privilege::record_skip(&test, "needs containernetworking-plugins");
    }
    let mut service = Service::prepare("");
    let (configs, leases) = (service.path("net.d"), service.path("cni-leases"));
    service.configure(&format!(
        "network = \"cni\"\n[cni]\nconfig = {configs:?}\nplugins = [\"/usr/lib/cni\"]\n"
    ));
    service.launch(&[]);
    let conflist = serde_json::json!({"cniVersion": "1.0.0", "name": "testnet", "plugins": [{
        "type": "bridge", "bridge": "cni-test0", "isGateway": true,
        "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": "10.99.0.0/24"}]]},
    }]});
    let leased = || -> Vec<String> {
        let files = std::fs::read_dir(leases.join("testnet")).into_iter().flatten().flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("10.")).collect()
    };
    let id = block_on(async {
        let mut client = service.runtime().await;
        let network = |status: StatusResponse| status.status.unwrap().conditions[1].clone();
        let before = network(client.status(StatusRequest::default()).await.unwrap().into_inner());
        assert!(!before.status && !before.message.is_empty(), "{before:?}");
        let refused = client.run_pod_sandbox(run_request(&pod_config("early"))).await.unwrap_err();
        assert!(refused.message().contains("net.d"), "{refused}");
        std::fs::create_dir(&configs).unwrap();
        std::fs::write(configs.join("10-test.conflist"), conflist.to_string()).unwrap();
        assert!(network(client.status(StatusRequest::default()).await.unwrap().into_inner()).status);
        let request = run_request(&pod_config("cni"));
        let id = client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
        let status =
            client.pod_sandbox_status(status_request(&id)).await.unwrap().into_inner().status.unwrap();
        assert_eq!(leased(), [status.network.unwrap().ip]);
        id
    });
    // DEL goes the way of ADD, also after a restart and when the configuration is gone.
    std::fs::remove_dir_all(&configs).unwrap();
    service.restart();
    block_on(async {
        let mut client = service.runtime().await;
        client.stop_pod_sandbox(stop(&id)).await.unwrap();
        assert_eq!(leased(), Vec::<String>::new());
        client.remove_pod_sandbox(remove(&id)).await.unwrap();
    });
    none_left(&service);
}

#[test]
fn calls_for_the_same_pod_join_and_later_attempts_are_younger() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let service = Service::start();
    block_on(async {
        let (mut one, mut two) = (service.runtime().await, service.runtime().await);
        let mut config = pod_config("joined");
        let (request, retry) = (run_request(&config), run_request(&config));
        let (a, b) = tokio::join!(one.run_pod_sandbox(request), two.run_pod_sandbox(retry));
        let (a, b) = (a.unwrap().into_inner().pod_sandbox_id, b.unwrap().into_inner().pod_sandbox_id);
        assert_eq!(a, b, "a call for a pod that is being made joins");
        config.metadata.as_mut().unwrap().attempt = 1;
        let later = one.run_pod_sandbox(run_request(&config)).await.unwrap().into_inner().pod_sandbox_id;
        let list = one.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
        let created = |id: &str| list.iter().find(|item| item.id == id).unwrap().created_at;
        assert_eq!(list.len(), 2);
        assert!(created(&later) > created(&a));
        for id in [a, later] {
            one.remove_pod_sandbox(remove(&id)).await.unwrap();
        }
    });
    none_left(&service);
}

/// A reboot, as the records show it: another boot id, no monitor, the run directory as it was.
#[test]
fn after_a_reboot_a_sandbox_is_not_ready_and_its_pins_are_gone() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let mut service = Service::start();
    let id = block_on(async {
        let mut client = service.runtime().await;
        let request = run_request(&shared_pid("boot"));
        client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    });
    service.kill();
    for (pid, _) in coracle_integration::leaks::processes(&service.path("run/pods").to_string_lossy()) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let record = service.path("root/cri/pods").join(&id).join("sandbox.json");
    let mut sandbox: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    sandbox["boot"] = "00000000-0000-0000-0000-000000000000".into();
    std::fs::write(&record, sandbox.to_string()).unwrap();
    service.launch(&[]);
    block_on(async {
        let mut client = service.runtime().await;
        let answer = client.pod_sandbox_status(status_request(&id)).await.unwrap().into_inner();
        assert_eq!(answer.status.unwrap().state(), PodSandboxState::SandboxNotready);
        assert!(answer.info["info"].contains("started anew"), "{}", answer.info["info"]);
        let pins = std::fs::read_dir(service.path("netns")).unwrap().count();
        assert_eq!(pins, 0, "stale pins are removed at once");
        client.stop_pod_sandbox(stop(&id)).await.unwrap();
        client.remove_pod_sandbox(remove(&id)).await.unwrap();
    });
    // The group is of this boot here, and a record of another boot names none: the test removes it.
    for root in coracle_integration::leaks::hierarchies() {
        let _ = std::fs::remove_dir(root.join("coracle").join(&id));
    }
    none_left(&service);
}
