//! A daemon that dies at any point, and a disk that is full.

use coracle_integration::cri::block_on;
use coracle_integration::cri_pod::{Pod, none_left, service_with_busybox, shell};
use coracle_integration::{privilege, require_pods, runtime, wait};
use k8s_cri::v1::*;

/// The points that a creation passes.
const CREATION: &[&str] = &[
    "container.intent",
    "container.lease",
    "container.rootfs",
    "container.volumes",
    "container.config",
    "container.made",
    "container.created",
];

fn has_fault_points() -> bool {
    let program = std::fs::read(runtime::built("coracled")).unwrap();
    if program.windows(13).any(|window| window == b"CORACLE_FAULT") {
        return true;
    }
    privilege::record_skip(&privilege::test_name(), "built without fault points");
    false
}

#[test]
fn a_creation_that_fails_leaves_nothing() {
    require_pods!();
    if !has_fault_points() {
        return;
    }
    for point in CREATION {
        let service = service_with_busybox("", &[("CORACLE_FAULT", &format!("{point}=fail"))]);
        block_on(async {
            let mut pod = Pod::run(&service, "fails").await;
            let error = pod.create(&shell("a", "sleep 1000")).await.unwrap_err();
            assert!(error.message().contains(point) && !error.message().contains("left"), "{error}");
            assert_eq!(pod.list().await.len(), 0);
            let id = pod.create(&shell("a", "exit 5")).await.unwrap();
            pod.start(&id).await.unwrap();
            assert_eq!(pod.ended(&id).await.exit_code, 5, "the second attempt");
            pod.end().await;
        });
        none_left(&service);
    }
}

#[test]
fn a_daemon_that_dies_in_a_creation_undoes_it_when_it_starts() {
    require_pods!();
    if !has_fault_points() {
        return;
    }
    for point in CREATION {
        let mut service = service_with_busybox("", &[("CORACLE_FAULT", &format!("{point}=kill"))]);
        block_on(async {
            let mut pod = Pod::run(&service, "dies").await;
            pod.create(&shell("a", "sleep 1000")).await.unwrap_err();
            assert!(service.wait_for_end(), "{point}");
            service.launch(&[]);
            pod.reconnect(&service).await;
            // After the last point the container is whole, and is handed to the retry.
            let expected = usize::from(*point == "container.created");
            assert_eq!(pod.list().await.len(), expected, "{point}");
            let id = pod.create(&shell("a", "sleep 1000")).await.unwrap();
            pod.start(&id).await.unwrap();
            assert_eq!(pod.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
            pod.end().await;
        });
        none_left(&service);
    }
}

#[test]
fn a_daemon_that_dies_in_a_start_stop_or_removal_goes_on() {
    require_pods!();
    if !has_fault_points() {
        return;
    }
    let points = [
        "container.starting",
        "container.started",
        "container.exited",
        "container.removing",
        "container.deleted",
        "container.unmounted",
        "container.released",
    ];
    for point in points {
        let mut service = service_with_busybox("", &[("CORACLE_FAULT", &format!("{point}=kill"))]);
        block_on(async {
            let mut pod = Pod::run(&service, "dies").await;
            let id = pod.create(&shell("a", "echo begun; sleep 1000")).await.unwrap();
            let mut died = pod.start(&id).await.is_err();
            if !died && pod.stop(&id, 0).await.is_err() {
                died = true;
            }
            if !died {
                pod.remove(&id).await.unwrap_err();
            }
            assert!(service.wait_for_end(), "{point}");
            service.launch(&[]);
            pod.reconnect(&service).await;
            let list = pod.list().await;
            if let Some(container) = list.first() {
                match point {
                    "container.starting" => assert_eq!(container.state(), ContainerState::ContainerCreated),
                    "container.started" => assert_eq!(container.state(), ContainerState::ContainerRunning),
                    _ => assert_eq!(container.state(), ContainerState::ContainerExited, "{point}"),
                }
                if point == "container.exited" {
                    assert_eq!(pod.status(&id).await.unwrap().exit_code, 137);
                }
            }
            pod.stop(&id, 0).await.unwrap();
            pod.remove(&id).await.unwrap();
            pod.end().await;
        });
        none_left(&service);
    }
}

#[test]
fn no_line_and_no_exit_code_is_lost_while_the_daemon_is_away() {
    require_pods!();
    let mut service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "away").await;
        let script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; sleep 1; exit 42";
        let short = pod.launch(&shell("short", script)).await;
        let long = pod.launch(&shell("long", "sleep 1000")).await;
        assert!(wait::until(wait::PATIENCE, || pod.log("short").len() > 100));
        service.kill();
        assert!(wait::until(wait::PATIENCE, || pod.log("short").len() == 20_000));
        let exits = service.path(&format!("run/pods/{}/monitor/exits/{short}.json", pod.id));
        assert!(wait::until(wait::PATIENCE, || exits.exists()));
        service.launch(&[]);
        pod.reconnect(&service).await;
        let status = pod.status(&short).await.unwrap();
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 42));
        let expected: String = (0..20_000).map(|n| format!("{n}\n")).collect();
        assert_eq!(pod.output("short"), expected);
        assert_eq!(pod.status(&long).await.unwrap().state(), ContainerState::ContainerRunning);
        // It is watched again.
        pod.stop(&long, 0).await.unwrap();
        assert_eq!(pod.status(&long).await.unwrap().exit_code, 137);
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn a_lost_monitor_is_reported_and_its_containers_are_ended() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "lost").await;
        let id = pod.launch(&shell("a", "sleep 1000")).await;
        let pid = pod.verbose(&id).await["pid"].as_i64().unwrap();
        let status = PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: true };
        let info = pod.client.pod_sandbox_status(status).await.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        let monitor = i32::try_from(info["monitorPid"].as_i64().unwrap()).unwrap();
        let monitor = rustix::process::Pid::from_raw(monitor).unwrap();
        rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
        let status = pod.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "MonitorLost"));
        assert!(
            !coracle_integration::leaks::is_alive(i32::try_from(pid).unwrap()),
            "told only when it is dead"
        );
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn a_full_disk_does_not_keep_containers() {
    require_pods!();
    let mut service = coracle_integration::cri::Service::prepare("");
    let root = service.path("root");
    std::fs::create_dir(&root).unwrap();
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    mount(Some("none"), &root, Some("tmpfs"), MsFlags::empty(), Some("size=24m")).unwrap();
    service.import_busybox().unwrap();
    service.launch(&[]);
    block_on(async {
        let mut pod = Pod::run(&service, "full").await;
        let quick = pod.launch(&shell("quick", "exit 3")).await;
        pod.ended(&quick).await;
        let running = pod.launch(&shell("running", "sleep 1000")).await;
        let filler = std::fs::File::create(root.join("filler")).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            use std::io::Write as _;
            if (&filler).write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
        pod.create(&shell("none", "true")).await.unwrap_err();
        pod.stop(&running, 0).await.unwrap();
        let status = pod.status(&running).await.unwrap();
        assert_eq!(
            (status.state(), status.exit_code),
            (ContainerState::ContainerExited, 137),
            "known though not written"
        );
        pod.remove(&running).await.unwrap();
        pod.remove(&quick).await.unwrap();
        assert_eq!(pod.list().await.len(), 0);
        pod.end().await;
    });
    service.kill();
    umount2(&root, MntFlags::MNT_DETACH).unwrap();
}
