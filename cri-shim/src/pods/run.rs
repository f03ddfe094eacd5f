//! RunPodSandbox: intent, namespaces, cgroup, network, files, monitor, done.
//!
//! The record names everything before it is made; whatever fails, [`teardown`] takes apart what the record names.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_runtime::fault;
use k8s_cri::v1::{ContainerEventType, RunPodSandboxRequest, RunPodSandboxResponse};
use tonic::Status;

use super::error::blocking;
use super::joins::{CLAIM, Role, Ticket};
use super::plan::{Key, Plan, namespace_options};
use super::{Error, cgroup, event, files, monitor, pins, plan, teardown};
use crate::daemon::Daemon;
use crate::fresh;
use crate::network::netns;
use crate::record::{Entry, Sandbox, SandboxState};

/// Makes a sandbox, or joins the call that is making it. Dropped when the client hangs up: the work goes on.
pub async fn run(
    daemon: &Arc<Daemon>,
    request: RunPodSandboxRequest,
) -> Result<RunPodSandboxResponse, Status> {
    let config = request.config.clone().unwrap_or_default();
    let plan = plan::check(&config).map_err(|e| e.on("run pod sandbox", &name_of(&request)))?;
    let options = namespace_options(&config);
    let (mut ticket, joined) = match daemon.joins.enter(&plan.key) {
        Role::Joined(ticket) => (ticket, true),
        Role::First(sender, ticket) => {
            let (daemon, own) = (Arc::clone(daemon), ticket.clone());
            tokio::spawn(async move {
                let outcome = make(&daemon, request, plan).await;
                if outcome.is_err() {
                    daemon.joins.leave(&own);
                }
                let made = outcome.as_ref().ok().cloned();
                let _ = sender.send(Some(outcome));
                if let Some(id) = made {
                    drop_unclaimed(&daemon, &own, &id).await;
                }
            });
            (ticket, false)
        }
    };
    let id = ticket.outcome().await?;
    daemon.joins.leave(&ticket);
    if joined
        && !daemon.records.sandboxes.get(&id).is_some_and(|s| namespace_options(&s.read().config) == options)
    {
        let text = format!("sandbox {id} of the same pod and attempt was made with other namespaces");
        return Err(Status::aborted(text));
    }
    Ok(RunPodSandboxResponse { pod_sandbox_id: id })
}

fn name_of(request: &RunPodSandboxRequest) -> String {
    let metadata = request.config.as_ref().and_then(|c| c.metadata.clone()).unwrap_or_default();
    format!("{}/{}", metadata.namespace, metadata.name)
}

/// A sandbox that nobody came for and that nobody uses is removed.
async fn drop_unclaimed(daemon: &Arc<Daemon>, ticket: &Ticket, id: &str) {
    tokio::time::sleep(CLAIM).await;
    if daemon.joins.leave(ticket) && daemon.records.containers_of(id).is_empty() {
        tracing::warn!(sandbox = id, "its client hung up and nobody asked again: removed");
        if let Err(error) = teardown::remove_by_id(daemon, id).await {
            tracing::warn!(sandbox = id, %error, "cannot be removed");
        }
    }
}

async fn make(daemon: &Arc<Daemon>, request: RunPodSandboxRequest, plan: Plan) -> Result<String, Status> {
    let name = plan.key.to_string();
    let fail = |e: Error| e.on("run pod sandbox", &name);
    refuse_second(daemon, &plan.key).await.map_err(fail)?;
    let entry = intend(daemon, &request, &plan).map_err(fail)?;
    let _turn = entry.turn().await;
    if let Err(failure) = bring_up(daemon, &entry, &plan).await {
        let error = match teardown::undo(daemon, &entry).await {
            Ok(()) => failure,
            Err(Error::Leftovers(leftovers)) => Error::Undo { failure: Box::new(failure), leftovers },
            Err(other) => Error::Undo { failure: Box::new(failure), leftovers: vec![("undo", other)] },
        };
        return Err(fail(error));
    }
    monitor::watch(daemon, &entry);
    event(daemon, &entry, ContainerEventType::ContainerCreatedEvent);
    event(daemon, &entry, ContainerEventType::ContainerStartedEvent);
    let id = entry.read().id.clone();
    Ok(id)
}

/// A pod and attempt has one sandbox. What a failure left of one is taken apart now.
async fn refuse_second(daemon: &Arc<Daemon>, key: &Key) -> Result<(), Error> {
    let same = |entry: &Entry<Sandbox>| {
        entry.read().config.metadata.as_ref().is_some_and(|metadata| Key::of(metadata) == *key)
    };
    let Some(entry) = daemon.records.sandboxes.list().into_iter().find(same) else { return Ok(()) };
    let (id, state) = (entry.read().id.clone(), entry.read().state);
    let state = match state {
        SandboxState::Creating => {
            let _turn = entry.turn().await;
            return teardown::undo(daemon, &entry).await;
        }
        SandboxState::Ready => "ready",
        SandboxState::NotReady => "stopped and has to be removed first",
    };
    Err(Error::Exists { key: key.to_string(), id, state })
}

/// Records what is going to be made.
fn intend(daemon: &Daemon, request: &RunPodSandboxRequest, plan: &Plan) -> Result<Entry<Sandbox>, Error> {
    daemon.config.handler(&request.runtime_handler).ok_or_else(|| Error::Invalid {
        field: "runtime_handler".into(),
        why: format!("no handler {:?} is configured", request.runtime_handler),
    })?;
    let config = request.config.clone().unwrap_or_default();
    let id = random_hex::<32>()?;
    let directory = daemon.sandbox_directory(&id);
    let (cgroup_parent, cgroup_made) = cgroup::place(&config, &id, daemon.config.cgroup_driver)?;
    let pin = |kind: &str| Some(directory.join("ns").join(kind));
    let user = plan.user.as_ref().and_then(|_| pin("user"));
    let sandbox = Sandbox {
        boot: daemon.boot.clone(),
        state: SandboxState::Creating,
        runtime_handler: request.runtime_handler.clone(),
        created_at: later_than_all(daemon, &plan.key),
        netns: if plan.host_network { None } else { Some(netns_path(&daemon.config.netns)?) },
        ports: plan.ports.clone(),
        attachment: if plan.host_network { None } else { Some(daemon.network.intend()?) },
        files: files::places(&directory, plan),
        ipcns: pin("ipc").filter(|_| !plan.host_ipc),
        utsns: pin("uts").filter(|_| !plan.host_network),
        pidns: pin("pid").filter(|_| plan.shared_pid),
        userns: user,
        cgroup_parent,
        cgroup_made,
        config,
        id,
        ..Sandbox::default()
    };
    fault::point("pods.run.intend")?;
    // Addresses that plugins keep on disk have to be given back after a power cut too. All else is of this boot: the
    // machine that forgets it has nothing of it.
    let outlives = sandbox.attachment.as_ref().is_some_and(|a| a.cni_chain.is_some());
    let records = &daemon.records.sandboxes;
    Ok(if outlives { records.insert(sandbox)? } else { records.insert_for_boot(sandbox)? })
}

async fn bring_up(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>, plan: &Plan) -> Result<(), Error> {
    fault::point("pods.run.recorded")?;
    let sandbox = entry.get();
    let directory = daemon.sandbox_directory(&sandbox.id);
    prepare(&sandbox, &directory, plan).await?;
    let ips = connect(daemon, entry, &sandbox).await?;
    fault::point("pods.run.files")?;
    let (place, copy) = (directory.clone(), plan.clone());
    blocking(move || files::make(&place, &copy, &ips)).await?;
    fault::point("pods.run.monitor")?;
    let identity = start_monitor(daemon, &sandbox).await?;
    let pid = identity.pid;
    entry.update_for_boot(|s| {
        s.monitor_pid = pid;
        s.monitor = Some(identity);
    })?;
    fault::point("pods.run.init")?;
    super::init::start(daemon, entry).await?;
    fault::point("pods.run.ready")?;
    entry.update(|s| s.state = SandboxState::Ready)?;
    Ok(())
}

/// Directory, namespaces, cgroup: what needs nobody else.
async fn prepare(sandbox: &Sandbox, directory: &std::path::Path, plan: &Plan) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let wanted = pins::Wanted {
        net: sandbox.netns.clone(),
        ipc: sandbox.ipcns.clone(),
        uts: sandbox.utsns.clone(),
        hostname: plan.hostname.clone(),
        sysctls: plan.sysctls.clone(),
    };
    let (directory, sandbox, maps) = (directory.to_owned(), sandbox.clone(), plan.user.clone());
    blocking(move || {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&directory)
            .map_err(|source| Error::Path { action: "create directory", path: directory.clone(), source })?;
        fault::point("pods.run.namespaces")?;
        match (maps, sandbox.userns) {
            (Some(maps), Some(pin)) => super::user::make(wanted, &maps, &pin)?,
            _ => pins::make(wanted)?,
        }
        fault::point("pods.run.cgroup")?;
        if sandbox.cgroup_made {
            cgroup::make(&sandbox.cgroup_parent, &sandbox.config)?;
        }
        Ok(())
    })
    .await
}

async fn connect(
    daemon: &Daemon,
    entry: &Entry<Sandbox>,
    sandbox: &Sandbox,
) -> Result<Vec<std::net::IpAddr>, Error> {
    let Some(pod) = teardown::pod_ref(sandbox) else { return Ok(Vec::new()) };
    fault::point("pods.run.network")?;
    let attachment = daemon.network.attach(&pod, &sandbox.attachment.clone().unwrap_or_default()).await?;
    fault::point("pods.run.connected")?;
    let ips = attachment.ips.clone();
    entry.update_for_boot(|s| s.attachment = Some(attachment))?;
    if ips.is_empty() {
        return Err(Error::NoAddress);
    }
    Ok(ips)
}

async fn start_monitor(
    daemon: &Daemon,
    sandbox: &Sandbox,
) -> Result<coracle_runtime::state::Identity, Error> {
    let directory = daemon.monitor_directory(&sandbox.id);
    let binary = daemon.programs.monitor.clone();
    let handler = daemon.config.handler(&sandbox.runtime_handler);
    let runtime: PathBuf =
        handler.and_then(|h| h.path.clone()).unwrap_or_else(|| daemon.programs.runtime.clone());
    blocking(move || monitor::spawn(&binary, &directory, &runtime)).await
}

/// Later than every earlier attempt of the same pod, whatever the clock says: the kubelet takes the youngest for the
/// current one.
fn later_than_all(daemon: &Daemon, key: &Key) -> i64 {
    let same = |entry: &Entry<Sandbox>| {
        let sandbox = entry.read();
        let metadata = sandbox.config.metadata.as_ref()?;
        Key::of(metadata).same_pod(key).then_some(sandbox.created_at)
    };
    let latest = daemon.records.sandboxes.list().iter().filter_map(same).max().unwrap_or(0);
    fresh::now().max(latest + 1)
}

/// `/run/netns/coracle-<uuid>`.
fn netns_path(directory: &std::path::Path) -> Result<PathBuf, Error> {
    let hex = random_hex::<16>()?;
    let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    Ok(netns::path_of(directory, &uuid))
}

fn random_hex<const BYTES: usize>() -> Result<String, Error> {
    fresh::random_hex::<BYTES>().map_err(|source| Error::Path {
        action: "read",
        path: "getrandom(2)".into(),
        source,
    })
}
