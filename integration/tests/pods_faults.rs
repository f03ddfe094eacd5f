//! Each fault point of the life of a sandbox failed once and the daemon killed there once.
//!
//! The points are read from the source, so that a new one is tested the day it is written. Afterwards the same pod can be
//! made, and nothing is left: no process, mount, namespace, cgroup, address, record.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use coracle_integration::cri::{self, Service, block_on, pod_config, run_request};
use coracle_integration::{leaks, require_root};
use k8s_cri::v1::*;

/// The names in `point("pods.…")` below `cri-shim/src/pods`.
fn points() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cri-shim/src/pods");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let names = text.split("point(\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(names.map(str::to_owned));
    }
    assert!(found.len() >= 12, "{found:?}");
    found
}

fn config(name: &str) -> PodSandboxConfig {
    let mut config = pod_config(name);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod as i32;
    let port = PortMapping { host_port: 8080, container_port: 80, ..PortMapping::default() };
    config.port_mappings.push(port);
    config
}

async fn run(service: &Service) -> Result<String, tonic::Status> {
    let mut client = service.runtime().await;
    let answer = client.run_pod_sandbox(run_request(&config("fault"))).await?;
    Ok(answer.into_inner().pod_sandbox_id)
}

async fn stop_and_remove(service: &Service, id: &str) -> Result<(), tonic::Status> {
    let mut client = service.runtime().await;
    client.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.into() }).await?;
    client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.into() }).await?;
    Ok(())
}

/// Groups of pods below `/coracle` that this test has seen the ids of.
fn cgroups(ids: &BTreeSet<String>) -> Vec<String> {
    let places = leaks::hierarchies();
    let paths = places.iter().flat_map(|root| ids.iter().map(move |id| root.join("coracle").join(id)));
    paths.filter(|path| path.exists()).map(|path| format!("cgroup: {}", path.display())).collect()
}

/// Ids of sandboxes, whole or not, from the names of their records.
fn note_ids(service: &Service, ids: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(service.path("root/cri/pods")).into_iter().flatten().flatten();
    ids.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
}

/// Meets one fault; a complaint or nothing.
fn meet(point: &str, action: &str) -> Result<(), String> {
    let mut service = Service::prepare("");
    service.launch(&[("CORACLE_FAULT", &format!("{point}={action}"))]);
    let mut ids = BTreeSet::new();
    let first = block_on(async {
        let id = run(&service).await.map_err(|e| (None, e))?;
        stop_and_remove(&service, &id).await.map_err(|e| (Some(id), e))
    });
    note_ids(&service, &mut ids);
    let Err((id, error)) = first else { return Err("the point was not passed".into()) };
    if action == "kill" {
        if !service.wait_for_end() {
            return Err(format!("the daemon lives on: {error}"));
        }
        service.launch(&[]);
    } else if !error.message().contains("fault injected") {
        return Err(format!("another error: {error}"));
    }
    let again = block_on(async {
        if let Some(id) = id {
            stop_and_remove(&service, &id).await?;
        }
        let id = run(&service).await?;
        ids.insert(id.clone());
        stop_and_remove(&service, &id).await
    });
    again.map_err(|e| format!("afterwards: {e}"))?;
    let mut left = service.leftovers_in_the_end();
    left.extend(cgroups(&ids));
    if left.is_empty() { Ok(()) } else { Err(format!("left: {left:#?}\nlog:\n{}", service.log())) }
}

#[test]
fn every_fault_and_every_kill_of_the_daemon_leaves_nothing() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let mut complaints = Vec::new();
    for point in points() {
        for action in ["fail", "kill"] {
            if let Err(complaint) = meet(&point, action) {
                complaints.push(format!("{point}={action}: {complaint}"));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[test]
fn a_monitor_killed_while_a_sandbox_is_removed_is_no_obstacle() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    let mut service = Service::start();
    let mut ids = BTreeSet::new();
    for round in 0..4 {
        let id = block_on(run(&service)).unwrap();
        ids.insert(id.clone());
        let monitors = leaks::processes(&service.path("run/pods").join(&id).to_string_lossy());
        for (pid, _) in monitors {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if round % 2 == 1 {
            service.restart();
        }
        block_on(stop_and_remove(&service, &id)).unwrap();
        let mut left = service.leftovers_in_the_end();
        left.extend(cgroups(&ids));
        assert!(left.is_empty(), "round {round}: {left:#?}\n{}", service.log());
    }
}
