//! From a CRI request to an OCI configuration: pure, tested without root.
//!
//! The caller brings what has to be read from the host or the image (`Sandbox`, `Image`, `User`); this module decides.
//! Nothing from an image (labels, annotations, environment) reaches a field that steers the runtime.

mod capabilities;
mod mounts;
mod namespaces;
mod process;
pub mod resources;
pub mod seccomp;
mod seccomp_table;
mod user;

pub use capabilities::{DEFAULT_CAPABILITIES, for_container as capabilities, names as capability_names};
pub use user::{Passwd, User, resolve as resolve_user};

use std::path::PathBuf;

use k8s_cri::v1::{ContainerConfig, LinuxContainerSecurityContext, PodSandboxConfig};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// What a request asks for and cannot be done; the text reaches the kubelet's user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A field is missing or malformed.
    #[error("{field}: {why}")]
    Field { field: &'static str, why: String },
    /// Neither the request nor the image says what to run.
    #[error(
        "no command: neither the container's command and args nor the image's entrypoint and cmd are set"
    )]
    NoCommand,
    /// A user or group that is not in the image.
    #[error("user {name:?}: no such entry in the image's {file}")]
    NoUser { name: String, file: &'static str },
    /// The configuration built from the request is not one that the runtime accepts.
    #[error("configuration built from the request is invalid: {0}")]
    Spec(String),
}

/// The sandbox that a container joins.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    /// 64 hex digits.
    pub id: String,
    /// The pinned network namespace; `None` on the host's network.
    pub netns: Option<PathBuf>,
    /// A namespace file of the pod (`/proc/<pid>/ns/ipc` or a pin); `None` on the host's.
    pub ipcns: Option<PathBuf>,
    /// The pod's UTS namespace; `None` on the host's network.
    pub utsns: Option<PathBuf>,
    /// The pod's PID namespace, where the pod shares one, or that of the target container.
    pub pidns: Option<PathBuf>,
    /// The pod's user namespace, which owns the others.
    pub userns: Option<PathBuf>,
    /// The files that the sandbox provides for `/etc` and the directory for `/dev/shm`.
    pub files: SandboxFiles,
    /// The cgroup of the container, in the form of the runtime's `cgroupsPath`.
    pub cgroups_path: String,
}

/// Host paths of what a sandbox mounts into each of its containers.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxFiles {
    pub resolv_conf: Option<PathBuf>,
    pub hosts: Option<PathBuf>,
    pub hostname: Option<PathBuf>,
    pub shm: Option<PathBuf>,
}

/// The part of an image's configuration that decides how its containers run.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Image {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: Option<String>,
    pub volumes: Vec<String>,
}

/// A device: path, type (`c`, `b`), major, minor.
pub type HostDevice = (String, char, u32, u32);

/// Everything that `container_spec` reads.
#[derive(Debug)]
pub struct Request<'a> {
    pub id: &'a str,
    pub pod: &'a PodSandboxConfig,
    pub config: &'a ContainerConfig,
    pub sandbox: &'a Sandbox,
    pub image: &'a Image,
    pub user: &'a User,
    /// Where the root file system is attached, absolute or relative to the bundle.
    pub rootfs: &'a str,
    /// Anonymous volumes of the image: host directory and path in the container.
    pub volumes: &'a [(PathBuf, String)],
    /// Devices of the host: all for a privileged container, else those that the request names.
    pub host_devices: &'a [HostDevice],
    /// A `Localhost` seccomp profile, already read.
    pub localhost_seccomp: Option<&'a Value>,
    /// Whether the container's cgroup is on v2.
    pub cgroup2: bool,
    /// What this process may hand on; empty where that is everything.
    pub held_capabilities: &'a [String],
    /// The least oom_score_adj that may be given here, where not any may.
    pub oom_score_floor: Option<i64>,
}

impl Request<'_> {
    fn security(&self) -> LinuxContainerSecurityContext {
        self.config.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
    }
}

/// Builds the OCI configuration of a container.
pub fn container_spec(request: &Request<'_>) -> Result<Spec, Invalid> {
    let security = request.security();
    let privileged = security.privileged;
    let mut linux = json!({
        "namespaces": namespaces::for_container(request, &security)?,
        "cgroupsPath": request.sandbox.cgroups_path,
        "resources": resources::for_container(request, privileged)?,
        "devices": resources::devices(request, privileged)?,
    });
    if !privileged {
        linux["maskedPaths"] = json!(security.masked_paths);
        linux["readonlyPaths"] = json!(security.readonly_paths);
    }
    if let Some(seccomp) = seccomp::for_container(request, &security)? {
        linux["seccomp"] = seccomp;
    }
    linux["rootfsPropagation"] = json!(mounts::rootfs_propagation(request.config));
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": process::for_container(request, &security)?,
        "root": {"path": request.rootfs, "readonly": security.readonly_rootfs},
        "mounts": mounts::for_container(request, &security)?,
        "annotations": annotations(request),
        "linux": linux,
    });
    serde_json::from_value(spec).map_err(|e| Invalid::Spec(e.to_string()))
}

/// The annotations that tools beside the node's runtime read; keys as containerd's CRI writes them.
fn annotations(request: &Request<'_>) -> Value {
    let meta = request.pod.metadata.clone().unwrap_or_default();
    let name = request.config.metadata.clone().unwrap_or_default().name;
    json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": request.sandbox.id,
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.sandbox-name": meta.name,
        "io.kubernetes.cri.sandbox-namespace": meta.namespace,
        "io.kubernetes.cri.sandbox-uid": meta.uid,
    })
}

#[cfg(test)]
mod tests;
