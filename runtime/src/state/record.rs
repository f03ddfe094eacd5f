//! The record of a container: runc's `state.json` by its field names where both have the fact, plus what Coracle adds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{ContainerState, LinuxNamespaceType, Spec, State};

use super::{Identity, now_rfc3339};

/// The version of the record that this program writes; it reads this one and older ones.
pub const VERSION: u32 = 1;

/// The version of the runtime specification that the runtime implements.
pub const SPEC_VERSION: &str = "1.3.0";

/// `<root>/<id>/state.json`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// The record's format, see [`VERSION`].
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// The pid of the container's first process, 0 until there is one.
    pub init_process_pid: i32,
    /// Its start time in clock ticks since boot, 0 until there is one.
    pub init_process_start: u64,
    /// When the container was created, RFC 3339.
    pub created: String,
    /// What runc's readers look for of the configuration.
    pub config: RecordConfig,
    /// Whether the runtime ran without privileges.
    pub rootless: bool,
    /// Controller (v1) or the empty string (v2) to the absolute path of the group. Written before the groups are made.
    #[serde(default)]
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// `NEWNS`, `NEWPID` … to `/proc/<pid>/ns/<name>`.
    #[serde(default)]
    pub namespace_paths: BTreeMap<String, PathBuf>,
    /// Where descriptors 0, 1 and 2 of the first process lead, for checkpoints.
    #[serde(default)]
    pub external_descriptors: Vec<String>,
    /// The container's resctrl group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub intel_rdt_path: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// How the groups are managed.
    #[serde(default)]
    pub cgroup_driver: CgroupDriverRecord,
    /// The systemd scope, with the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_scope: Option<String>,
    /// The first process; `None` while `create` is under way (or was cut short).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// The configuration as it was at `create`, changed by `update`.
    pub spec: Spec,
}

/// The part of runc's `config` that other programs read.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RecordConfig {
    /// The absolute path of the root file system.
    pub rootfs: PathBuf,
    /// Whether it is mounted read-only.
    #[serde(default)]
    pub readonlyfs: bool,
    /// The host name.
    #[serde(default)]
    pub hostname: String,
    /// The namespaces as configured.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// `key=value` of the annotations, and `bundle=<path>` last, as runc has it.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// One namespace of `config.namespaces`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Namespace {
    /// `NEWNET`, `NEWNS` …
    #[serde(rename = "type")]
    pub kind: String,
    /// The namespace joined, empty for a new one.
    #[serde(default)]
    pub path: PathBuf,
}

/// Who manages the container's groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriverRecord {
    /// The runtime makes and removes directories.
    #[default]
    Cgroupfs,
    /// systemd makes a scope.
    Systemd,
    /// No group at all (rootless without delegation).
    Disabled,
}

/// The life of a container as `state` and `list` print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` is under way.
    Creating,
    /// The first process waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// All of it is frozen.
    Paused,
    /// The first process is gone.
    Stopped,
}

impl Status {
    /// The specification's word (`paused` is runc's addition).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl Record {
    /// The record of a container that is about to be made: no process, no groups.
    ///
    /// `bundle` and `rootfs` are absolute.
    #[must_use]
    pub fn new(id: &str, bundle: &Path, rootfs: &Path, spec: &Spec) -> Self {
        Self {
            version: VERSION,
            id: id.to_owned(),
            init_process_pid: 0,
            init_process_start: 0,
            created: now_rfc3339(),
            config: RecordConfig::new(bundle, rootfs, spec),
            rootless: false,
            cgroup_paths: BTreeMap::new(),
            namespace_paths: BTreeMap::new(),
            external_descriptors: Vec::new(),
            intel_rdt_path: String::new(),
            bundle: bundle.to_owned(),
            cgroup_driver: CgroupDriverRecord::default(),
            cgroup_scope: None,
            identity: None,
            spec: spec.clone(),
        }
    }

    /// Records the first process: identity, runc's two fields, and the paths of its namespaces.
    pub fn set_identity(&mut self, identity: Identity) {
        self.init_process_pid = identity.pid;
        self.init_process_start = identity.start_time;
        self.namespace_paths = namespace_paths(identity.pid);
        self.identity = Some(identity);
    }

    /// The state document that hooks and console sockets get (runtime-spec, "State").
    #[must_use]
    pub fn oci_state(&self, status: ContainerState) -> State {
        let mut state = State::default();
        state.set_version(SPEC_VERSION.to_owned());
        state.set_id(self.id.clone());
        state.set_status(status);
        state.set_pid(Some(self.init_process_pid).filter(|pid| *pid > 0));
        state.set_bundle(self.bundle.clone());
        state.set_annotations(self.spec.annotations().clone().filter(|all| !all.is_empty()));
        state
    }
}

impl RecordConfig {
    fn new(bundle: &Path, rootfs: &Path, spec: &Spec) -> Self {
        let mut labels: Vec<String> =
            spec.annotations().iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        labels.sort();
        labels.push(format!("bundle={}", bundle.display()));
        Self {
            rootfs: rootfs.to_owned(),
            readonlyfs: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            hostname: spec.hostname().clone().unwrap_or_default(),
            namespaces: configured_namespaces(spec),
            labels,
        }
    }
}

fn configured_namespaces(spec: &Spec) -> Vec<Namespace> {
    let Some(linux) = spec.linux() else { return Vec::new() };
    let Some(list) = linux.namespaces() else { return Vec::new() };
    list.iter()
        .map(|ns| Namespace {
            kind: namespace_key(ns.typ()).to_owned(),
            path: ns.path().clone().unwrap_or_default(),
        })
        .collect()
}

/// runc's name of a namespace type.
#[must_use]
pub const fn namespace_key(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "NEWNS",
        LinuxNamespaceType::Cgroup => "NEWCGROUP",
        LinuxNamespaceType::Uts => "NEWUTS",
        LinuxNamespaceType::Ipc => "NEWIPC",
        LinuxNamespaceType::User => "NEWUSER",
        LinuxNamespaceType::Pid => "NEWPID",
        LinuxNamespaceType::Network => "NEWNET",
        LinuxNamespaceType::Time => "NEWTIME",
    }
}

fn namespace_paths(pid: i32) -> BTreeMap<String, PathBuf> {
    const ALL: [(&str, &str); 8] = [
        ("NEWCGROUP", "cgroup"),
        ("NEWIPC", "ipc"),
        ("NEWNET", "net"),
        ("NEWNS", "mnt"),
        ("NEWPID", "pid"),
        ("NEWTIME", "time"),
        ("NEWUSER", "user"),
        ("NEWUTS", "uts"),
    ];
    ALL.iter()
        .map(|(key, file)| ((*key).to_owned(), PathBuf::from(format!("/proc/{pid}/ns/{file}"))))
        .filter(|(_, path)| path.symlink_metadata().is_ok())
        .collect()
}
