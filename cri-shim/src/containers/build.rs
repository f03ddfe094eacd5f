//! The creation of a container, in order of time; blocking. Each step that leaves something pushes what takes it back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_image_store::store::Image;
use coracle_image_store::{bundle, fault};
use coracle_monitor::protocol::{Create, Reply, Request};
use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{ContainerConfig, Device, IdMapping, LinuxContainerSecurityContext, Mount};
use serde_json::Value;

use super::error::Error;
use super::undo::Undo;
use super::{host, monitor, rootfs, volumes};
use crate::config::CgroupDriver;
use crate::daemon::Daemon;
use crate::oci;
use crate::record::{Container, ContainerState, Entry, Sandbox};

/// Of a `Localhost` seccomp profile.
const MAX_PROFILE: u64 = 4 << 20;

/// What is to be made.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) created_at: i64,
    pub(super) sandbox: Sandbox,
    pub(super) config: ContainerConfig,
    /// PID namespace of the target container, where one is asked for.
    pub(super) target: Option<PathBuf>,
}

/// The images that a container needs: its own and those of its image volumes.
struct Images {
    own: Image,
    process: oci::Image,
    volumes: Vec<(Mount, Image)>,
}

/// Makes a container that waits for its start, or nothing.
pub(super) fn build(daemon: &Arc<Daemon>, plan: &Plan) -> Result<Entry<Container>, Error> {
    let mut undo = Undo::default();
    steps(daemon, plan, &mut undo).map_err(|error| undo.after(error))
}

fn steps(daemon: &Arc<Daemon>, plan: &Plan, undo: &mut Undo) -> Result<Entry<Container>, Error> {
    let security = security_of(&plan.config);
    host::check_apparmor(&security)?;
    let images = find_images(daemon, &plan.config)?;
    let entry = intent(daemon, plan, &images, undo)?;
    fault::point("container.intent")?;
    lease(daemon, plan, &images, undo)?;
    fault::point("container.lease")?;
    let bundle = daemon.container_directory(&plan.id).join("bundle");
    let root = bundle.join("rootfs");
    attach(daemon, plan, &images, entry.directory(), &bundle, undo)?;
    fault::point("container.rootfs")?;
    let user = rootfs::resolve_user(&root, &security, &images.process.user)?;
    let anonymous = anonymous_volumes(&images.process.volumes, &root, entry.directory(), &plan.config)?;
    fault::point("container.volumes")?;
    let spec = spec(daemon, plan, &images, &user, &anonymous, &root)?;
    bundle::write_config(&bundle, &spec)?;
    fault::point("container.config")?;
    let pid = make(daemon, plan, &bundle, undo)?;
    fault::point("container.made")?;
    entry.update_for_boot(|c| {
        c.user = user;
        c.pid = pid;
        c.state = ContainerState::Created;
    })?;
    fault::point("container.created")?;
    Ok(entry)
}

/// The record comes before everything that it speaks of.
fn intent(
    daemon: &Arc<Daemon>,
    plan: &Plan,
    images: &Images,
    undo: &mut Undo,
) -> Result<Entry<Container>, Error> {
    let (config, sandbox) = (&plan.config, &plan.sandbox);
    let log = (!config.log_path.is_empty() && !sandbox.config.log_directory.is_empty())
        .then(|| Path::new(&sandbox.config.log_directory).join(&config.log_path));
    let digest = images.own.repo_digests().into_iter().next();
    let id = plan.id.clone();
    let record = Container {
        id: id.clone(),
        sandbox: sandbox.id.clone(),
        boot: daemon.boot.clone(),
        config: config.clone(),
        image_ref: digest.unwrap_or_else(|| images.own.record.id.to_string()),
        image_id: images.own.record.id.to_string(),
        log_path: log.unwrap_or_default(),
        stop_signal: images.process.stop_signal.clone().unwrap_or_default(),
        created_at: plan.created_at,
        ..Container::default()
    };
    let own = Arc::clone(daemon);
    undo.push("remove the record", move || Ok(own.records.containers.remove(&id)?));
    Ok(daemon.records.containers.insert(record)?)
}

/// Layers stay while the container is there, whatever becomes of the image.
fn lease(daemon: &Arc<Daemon>, plan: &Plan, images: &Images, undo: &mut Undo) -> Result<(), Error> {
    let all = std::iter::once(&images.own).chain(images.volumes.iter().map(|(_, image)| image));
    let layers: Vec<_> =
        all.flat_map(|image| image.record.layers.iter().map(|layer| layer.diff_id)).collect();
    let (own, id) = (Arc::clone(daemon), plan.id.clone());
    undo.push("release the layers", move || Ok(own.store.release(&id)?));
    Ok(daemon.store.lease_as(&plan.id, &layers)?)
}

fn attach(
    daemon: &Arc<Daemon>,
    plan: &Plan,
    images: &Images,
    place: &Path,
    bundle: &Path,
    undo: &mut Undo,
) -> Result<(), Error> {
    let directory = daemon.container_directory(&plan.id);
    let root = bundle.join("rootfs");
    let gone = directory.clone();
    undo.push("unmount", move || {
        rootfs::detach_all(&gone)?;
        remove_directory(&gone)
    });
    rootfs::make_directory(&root, 0o711)?;
    rootfs::attach(&daemon.store, &images.own, place, &root, user_of(&plan.sandbox).as_ref())?;
    for (n, (_, image)) in images.volumes.iter().enumerate() {
        rootfs::attach_read_only(&daemon.store, image, &image_volume(&directory, n))?;
    }
    Ok(())
}

/// The pod's user namespace, where it has one, and who its root is on the host.
fn user_of(sandbox: &Sandbox) -> Option<rootfs::UserNamespace> {
    let security = sandbox.config.linux.as_ref()?.security_context.as_ref()?;
    let maps = security.namespace_options.as_ref()?.userns_options.as_ref()?;
    let root = |list: &[IdMapping]| list.iter().find(|m| m.container_id == 0).map(|m| m.host_id);
    Some(rootfs::UserNamespace {
        path: sandbox.userns.clone()?,
        root: (root(&maps.uids).unwrap_or(0), root(&maps.gids).unwrap_or(0)),
    })
}

/// Where the n-th image volume is mounted on the host.
fn image_volume(directory: &Path, n: usize) -> PathBuf {
    directory.join("images").join(n.to_string())
}

pub(super) fn remove_directory(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::path("remove", path)(e)),
        _ => Ok(()),
    }
}

fn find_images(daemon: &Daemon, config: &ContainerConfig) -> Result<Images, Error> {
    let name = config.image.clone().unwrap_or_default().image;
    if name.is_empty() {
        return Err(Error::Invalid { field: "image", why: "is not set".into() });
    }
    let own = daemon.store.image(&name)?;
    let process = process_of(&daemon.store.config(&own.record.id)?);
    let mut volumes = Vec::new();
    for mount in config.mounts.iter().filter(|m| m.image.is_some()) {
        let name = mount.image.clone().unwrap_or_default().image;
        if !mount.host_path.is_empty() {
            let why = format!("{}: host_path and image exclude each other", mount.container_path);
            return Err(Error::Invalid { field: "mounts", why });
        }
        if !mount.readonly {
            let why =
                format!("{}: an image is mounted read-only, and readonly is not set", mount.container_path);
            return Err(Error::Invalid { field: "mounts", why });
        }
        volumes.push((mount.clone(), daemon.store.image(&name)?));
    }
    Ok(Images { own, process, volumes })
}

/// What of an image's configuration decides how its containers run.
fn process_of(config: &oci_spec::image::ImageConfiguration) -> oci::Image {
    let config = config.config().clone().unwrap_or_default();
    oci::Image {
        env: config.env().clone().unwrap_or_default(),
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone(),
        volumes: config.volumes().clone().unwrap_or_default(),
    }
}

/// A directory for each volume of the image that the request does not mount, with the image's content.
fn anonymous_volumes(
    paths: &[String],
    root: &Path,
    place: &Path,
    config: &ContainerConfig,
) -> Result<Vec<(PathBuf, String)>, Error> {
    let mut made = Vec::new();
    for (n, path) in paths.iter().filter(|p| p.starts_with('/')).enumerate() {
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        if config.mounts.iter().any(|m| m.container_path.trim_end_matches('/') == path) {
            continue;
        }
        let target = place.join("volumes").join(n.to_string());
        rootfs::copy_volume(root, path, &target)?;
        made.push((target, path.to_owned()));
    }
    Ok(made)
}

fn spec(
    daemon: &Daemon,
    plan: &Plan,
    images: &Images,
    user: &oci::User,
    anonymous: &[(PathBuf, String)],
    root: &Path,
) -> Result<Value, Error> {
    let security = security_of(&plan.config);
    let mut config = plan.config.clone();
    let mut devices = if security.privileged { host::all_devices() } else { Vec::new() };
    config.devices = expand_devices(&config.devices, &mut devices)?;
    volumes::resolve(&mut config)?;
    let directory = daemon.container_directory(&plan.id);
    mount_images(&mut config, images, &directory);
    let profile = localhost_seccomp(&security)?;
    let sandbox = sandbox_of(daemon, plan);
    let mut pod = plan.sandbox.config.clone();
    if pod.hostname.is_empty() {
        // On the host's network, and where no name is asked for, the containers see the host's.
        pod.hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    let request = oci::Request {
        id: &plan.id,
        pod: &pod,
        config: &config,
        sandbox: &sandbox,
        image: &images.process,
        user,
        rootfs: &root.to_string_lossy(),
        volumes: anonymous,
        host_devices: &devices,
        localhost_seccomp: profile.as_ref(),
        cgroup2: host::cgroup2(),
        held_capabilities: &host::bounding_capabilities(),
        oom_score_floor: host::oom_score_floor(),
    };
    let spec = oci::container_spec(&request)?;
    serde_json::to_value(spec).map_err(|e| Error::Oci(oci::Invalid::Spec(e.to_string())))
}

/// What the container joins and mounts of its sandbox.
fn sandbox_of(daemon: &Daemon, plan: &Plan) -> oci::Sandbox {
    let sandbox = &plan.sandbox;
    oci::Sandbox {
        id: sandbox.id.clone(),
        netns: sandbox.netns.clone(),
        ipcns: sandbox.ipcns.clone(),
        utsns: sandbox.utsns.clone(),
        userns: sandbox.userns.clone(),
        pidns: plan.target.clone().or_else(|| sandbox.pidns.clone()),
        files: sandbox.files.clone(),
        cgroups_path: cgroups_path(daemon.config.cgroup_driver, &sandbox.cgroup_parent, &plan.id),
    }
}

fn cgroups_path(driver: CgroupDriver, parent: &str, id: &str) -> String {
    match driver {
        CgroupDriver::Cgroupfs => format!("{}/{id}", parent.trim_end_matches('/')),
        CgroupDriver::Systemd => format!("{}:coracle:{id}", parent.trim_end_matches(":coracle:")),
    }
}

/// An image volume becomes a bind mount of the place where it was attached; always read-only.
fn mount_images(config: &mut ContainerConfig, images: &Images, directory: &Path) {
    let mut n = 0;
    for mount in config.mounts.iter_mut().filter(|m| m.image.is_some()) {
        mount.host_path = image_volume(directory, n).to_string_lossy().into_owned();
        mount.image = None;
        n += 1;
    }
    debug_assert_eq!(n, images.volumes.len());
}

/// A directory stands for every device below it.
fn expand_devices(asked: &[Device], known: &mut Vec<oci::HostDevice>) -> Result<Vec<Device>, Error> {
    let mut all = Vec::new();
    for device in asked {
        for found in host::devices_at(Path::new(&device.host_path))? {
            let below = found.0.strip_prefix(device.host_path.trim_end_matches('/')).unwrap_or_default();
            let container_path = match device.container_path.as_str() {
                "" => String::new(),
                path => format!("{}{below}", path.trim_end_matches('/')),
            };
            all.push(Device { host_path: found.0.clone(), container_path, ..device.clone() });
            known.push(found);
        }
    }
    Ok(all)
}

fn localhost_seccomp(security: &LinuxContainerSecurityContext) -> Result<Option<Value>, Error> {
    let Some(profile) = security.seccomp.as_ref().filter(|p| p.profile_type() == ProfileType::Localhost)
    else {
        return Ok(None);
    };
    let path = Path::new(profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref));
    let bad = |why: String| Error::Invalid { field: "seccomp.localhost_ref", why };
    if !path.is_absolute() {
        return Err(bad(format!("{:?} is not an absolute path", profile.localhost_ref)));
    }
    let bytes = coracle_image_store::store::file::read_bounded(path, MAX_PROFILE)
        .map_err(|e| bad(format!("{}: {e}", path.display())))?;
    let value = serde_json::from_slice(&bytes).map_err(|e| bad(format!("{}: {e}", path.display())))?;
    Ok(Some(value))
}

pub(super) fn security_of(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
}

/// The monitor makes the process, which waits for its start.
fn make(daemon: &Arc<Daemon>, plan: &Plan, bundle: &Path, undo: &mut Undo) -> Result<i32, Error> {
    let log = daemon.records.containers.get(&plan.id).map(|c| c.read().log_path.clone());
    let log_path = log.filter(|p| !p.as_os_str().is_empty());
    if let Some(directory) = log_path.as_deref().and_then(Path::parent) {
        rootfs::make_directory(directory, 0o755)?;
    }
    let (own, id, sandbox) = (Arc::clone(daemon), plan.id.clone(), plan.sandbox.id.clone());
    undo.push("remove the process", move || remove_process(&own, &sandbox, &id));
    let request = Request::Create(Create {
        id: plan.id.clone(),
        bundle: bundle.to_owned(),
        runtime_root: daemon.runtime_root(),
        systemd: daemon.config.cgroup_driver == CgroupDriver::Systemd,
        stdin: plan.config.stdin,
        stdin_once: plan.config.stdin_once,
        log_path,
        deadline_ms: u64::try_from(monitor::CREATION.as_millis()).unwrap_or(u64::MAX),
    });
    let deadline = monitor::CREATION + monitor::SHORT;
    match monitor::ask(daemon, &plan.sandbox.id, &request, deadline)? {
        Reply::Started { pid } => Ok(pid),
        other => Err(Error::Monitor {
            sandbox: plan.sandbox.id.clone(),
            source: coracle_monitor::client::Error::Unexpected(Box::new(other)),
        }),
    }
}

fn remove_process(daemon: &Daemon, sandbox: &str, id: &str) -> Result<(), Error> {
    match monitor::ask(daemon, sandbox, &Request::Delete { id: id.to_owned() }, monitor::SHORT) {
        Err(error) if !monitor::is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_named_as_the_driver_wants() {
        assert_eq!(cgroups_path(CgroupDriver::Cgroupfs, "/kubepods/pod1", "c"), "/kubepods/pod1/c");
        assert_eq!(cgroups_path(CgroupDriver::Cgroupfs, "/", "c"), "/c");
        assert_eq!(cgroups_path(CgroupDriver::Systemd, "a.slice", "c"), "a.slice:coracle:c");
        assert_eq!(cgroups_path(CgroupDriver::Systemd, "a.slice:coracle:", "c"), "a.slice:coracle:c");
    }
}
