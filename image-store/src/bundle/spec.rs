//! The `config.json` of a container that runs an image: the defaults of the usual engines, with the process put in.

use serde_json::{Value, json};

use super::Process;

/// What Docker and containerd leave to a container.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What is not in the image.
#[derive(Debug, Clone, Default)]
pub struct SpecOptions {
    /// The host name; `coracle` when empty.
    pub hostname: String,
    /// Use the host's network.
    pub host_network: bool,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// Bind mounts: source, target, read-only.
    pub binds: Vec<(String, String, bool)>,
    /// A seccomp profile.
    pub seccomp: Option<Value>,
}

/// Makes the configuration.
#[must_use]
pub fn spec(process: &Process, options: &SpecOptions) -> Value {
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
    ];
    if !options.host_network {
        namespaces.push(json!({"type": "network"}));
    }
    let hostname = if options.hostname.is_empty() { "coracle" } else { &options.hostname };
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
    });
    if let Some(seccomp) = &options.seccomp {
        linux["seccomp"] = seccomp.clone();
    }
    let mut spec = json!({
        "ociVersion": "1.1.0",
        "process": process_section(process),
        "root": {"path": "rootfs", "readonly": options.read_only},
        "hostname": hostname,
        "mounts": mounts(options),
        "linux": linux,
    });
    if let Some(signal) = &process.stop_signal {
        spec["annotations"] = json!({"org.opencontainers.image.stopSignal": signal});
    }
    spec
}

fn process_section(process: &Process) -> Value {
    json!({
        "terminal": process.terminal,
        "user": {
            "uid": process.user.uid,
            "gid": process.user.gid,
            "additionalGids": process.user.additional_gids,
        },
        "args": process.args,
        "env": process.env,
        "cwd": process.cwd,
        // A user that is not root gets what it raises through set-uid programs, and nothing before.
        "capabilities": if process.user.uid == 0 {
            json!({"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES})
        } else {
            json!({"bounding": CAPABILITIES})
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": true,
    })
}

fn mounts(options: &SpecOptions) -> Vec<Value> {
    let mount = |target: &str, kind: &str, flags: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": flags});
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ];
    if options.host_network {
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            if std::path::Path::new(file).exists() {
                mounts.push(bind(file, file, true));
            }
        }
    }
    mounts.extend(options.binds.iter().map(|(source, target, read_only)| bind(source, target, *read_only)));
    mounts
}

fn bind(source: &str, target: &str, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    json!({"destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate", access]})
}
