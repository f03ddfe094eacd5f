//! Capability sets of a container: the engine-wide default, `ALL`, added, dropped, ambient.

use k8s_cri::v1::LinuxContainerSecurityContext;
use serde_json::{Value, json};

/// What a container has without further words; the list that Docker, containerd and CRI-O users know.
pub const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Every capability up to Linux 6.x in the kernel's order (capabilities(7)); the runtime drops those that the kernel does not know.
const ALL_BY_NUMBER: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The names of a set that the kernel shows as bits.
#[must_use]
pub fn names(bits: u64) -> Vec<String> {
    let set = ALL_BY_NUMBER.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
    set.map(|(_, name)| (*name).to_owned()).collect()
}

/// The five sets. `held` is what this process may hand on (the daemon's own bounding set); a privileged container gets
/// all of it, so that a node whose daemon was confined still starts privileged containers.
#[must_use]
pub fn for_container(security: &LinuxContainerSecurityContext, held: &[String]) -> Value {
    let asked = security.capabilities.clone().unwrap_or_default();
    let all =
        || ALL_BY_NUMBER.iter().map(ToString::to_string).filter(|c| held.is_empty() || held.contains(c));
    let mut set: Vec<String> = if security.privileged {
        all().collect()
    } else {
        DEFAULT_CAPABILITIES.iter().map(ToString::to_string).collect()
    };
    // What this daemon lacks cannot be given; only what was asked for by name is refused by the runtime.
    set.retain(|c| held.is_empty() || held.contains(c));
    let add: Vec<String> = asked.add_capabilities.iter().map(|c| canonical(c)).collect();
    let drop: Vec<String> = asked.drop_capabilities.iter().map(|c| canonical(c)).collect();
    let ambient: Vec<String> = asked.add_ambient_capabilities.iter().map(|c| canonical(c)).collect();
    if add.iter().any(|c| c == "CAP_ALL") {
        set = all().collect();
    }
    if drop.iter().any(|c| c == "CAP_ALL") {
        set.clear();
    }
    for capability in add.iter().chain(&ambient) {
        if capability != "CAP_ALL" && !set.contains(capability) {
            set.push(capability.clone());
        }
    }
    set.retain(|c| !drop.contains(c));
    let ambient: Vec<&String> = ambient.iter().filter(|c| set.contains(c)).collect();
    json!({
        "bounding": set,
        "effective": set,
        "permitted": set,
        "inheritable": ambient,
        "ambient": ambient,
    })
}

/// `net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are one name.
fn canonical(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}
