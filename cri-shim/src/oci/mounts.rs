//! Mounts of a container: the kernel's file systems, the pod's files, the request's volumes.

use k8s_cri::v1::{ContainerConfig, LinuxContainerSecurityContext, Mount, MountPropagation};
use serde_json::{Value, json};

use super::{Invalid, Request, namespaces};

/// `HostToContainer` needs a slave root, `Bidirectional` a shared one.
pub(super) fn rootfs_propagation(config: &ContainerConfig) -> &'static str {
    let any = |wanted| config.mounts.iter().any(|m| m.propagation() == wanted);
    if any(MountPropagation::PropagationBidirectional) {
        "shared"
    } else if any(MountPropagation::PropagationHostToContainer) {
        "rslave"
    } else {
        "private"
    }
}

/// All mounts, parents before children.
pub(super) fn for_container(
    request: &Request<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<Vec<Value>, Invalid> {
    let mut list = kernel_mounts(security.privileged);
    list.extend(pod_files(request, security.readonly_rootfs));
    for (host, container) in request.volumes {
        if !request.config.mounts.iter().any(|m| m.container_path == *container) {
            list.push(json!({"destination": container, "source": host, "type": "bind", "options": ["rbind", "rprivate", "rw"]}));
        }
    }
    let mut asked: Vec<&Mount> = request.config.mounts.iter().filter(|m| m.image.is_none()).collect();
    asked.sort_by_key(|m| m.container_path.split('/').filter(|p| !p.is_empty()).count());
    for mount in asked {
        list.retain(|m| m["destination"] != mount.container_path.as_str());
        list.push(volume(mount)?);
    }
    Ok(list)
}

fn kernel_mounts(privileged: bool) -> Vec<Value> {
    let access = if privileged { "rw" } else { "ro" };
    vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", access]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
               "options": ["nosuid", "noexec", "nodev", "relatime", access]}),
    ]
}

fn pod_files(request: &Request<'_>, readonly_root: bool) -> Vec<Value> {
    let files = &request.sandbox.files;
    let access = if readonly_root { "ro" } else { "rw" };
    let table = [
        ("/etc/resolv.conf", &files.resolv_conf, access),
        ("/etc/hosts", &files.hosts, access),
        ("/etc/hostname", &files.hostname, access),
        ("/dev/shm", &files.shm, "rw"),
    ];
    let wanted =
        table.into_iter().filter(|(to, _, _)| !request.config.mounts.iter().any(|m| m.container_path == *to));
    wanted
        .filter_map(|(to, from, access)| {
            let from = from.as_ref()?;
            Some(json!({"destination": to, "source": from, "type": "bind", "options": ["rbind", "rprivate", access]}))
        })
        .collect()
}

fn volume(mount: &Mount) -> Result<Value, Invalid> {
    let bad = |why: String| Invalid::Field { field: "mounts", why };
    if !mount.container_path.starts_with('/') {
        return Err(bad(format!("container path {:?} is not absolute", mount.container_path)));
    }
    if !mount.host_path.starts_with('/') {
        return Err(bad(format!("host path {:?} is not absolute", mount.host_path)));
    }
    if mount.recursive_read_only && !mount.readonly {
        return Err(bad(format!("{}: recursive_read_only needs readonly", mount.container_path)));
    }
    if mount.recursive_read_only && mount.propagation() != MountPropagation::PropagationPrivate {
        return Err(bad(format!("{}: recursive_read_only needs private propagation", mount.container_path)));
    }
    let propagation = match mount.propagation() {
        MountPropagation::PropagationPrivate => "rprivate",
        MountPropagation::PropagationHostToContainer => "rslave",
        MountPropagation::PropagationBidirectional => "rshared",
    };
    let access = match (mount.readonly, mount.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let mut value = json!({
        "destination": mount.container_path,
        "source": mount.host_path,
        "type": "bind",
        "options": ["rbind", propagation, access],
    });
    if !mount.uid_mappings.is_empty() {
        value["uidMappings"] = namespaces::mappings(&mount.uid_mappings);
        value["gidMappings"] = namespaces::mappings(&mount.gid_mappings);
    }
    Ok(value)
}
