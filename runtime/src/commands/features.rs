//! `features`: what this runtime implements, as the specification's features document (runc's layout).

use std::io::Write;

use serde_json::{Value, json};

use super::flags::Parsed;
use super::{Arity, Context, Error, Verb};
use crate::plan::mount_options;
use crate::state::SPEC_VERSION;

pub const VERB: Verb = Verb {
    name: "features",
    usage: "show the enabled features",
    arguments: "",
    description: "Show the enabled features.\n   The result is parsable as a JSON.\n   See https://github.com/opencontainers/runtime-spec/blob/main/features.md for the type definition.",
    flags: &[],
    arity: Arity::Exactly(0),
    reorders: true,
    enters: false,
    failure: 1,
    run,
};

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// In the order of the kernel's numbers.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const SECCOMP_ACTIONS: [&str; 9] =
    ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP"];

const SECCOMP_OPERATORS: [&str; 7] = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"];

const SECCOMP_ARCHS: [&str; 17] = [
    "AARCH64",
    "ARM",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "RISCV64",
    "S390",
    "S390X",
    "X32",
    "X86",
    "X86_64",
];

const SECCOMP_FLAGS: [&str; 3] =
    ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"];

const MEMORY_POLICIES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_POLICY_FLAGS: [&str; 3] =
    ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

fn run(_: &Context, _: &Parsed) -> Result<u8, Error> {
    let text = serde_json::to_string_pretty(&document())
        .map_err(|source| Error::Json { path: "features".into(), source })?;
    std::io::stdout().write_all((text + "\n").as_bytes()).map_err(Error::io("write", "/dev/stdout"))?;
    Ok(0)
}

fn document() -> Value {
    let prefixed = |prefix: &str, names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("{prefix}{name}")).collect()
    };
    let mut mount_options: Vec<&str> = mount_options::known_words().collect();
    mount_options.sort_unstable();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": HOOKS,
        "mountOptions": mount_options,
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": prefixed("CAP_", &CAPABILITIES),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": prefixed("SCMP_ACT_", &SECCOMP_ACTIONS),
                "operators": prefixed("SCMP_CMP_", &SECCOMP_OPERATORS),
                "archs": prefixed("SCMP_ARCH_", &SECCOMP_ARCHS),
                "knownFlags": SECCOMP_FLAGS,
                "supportedFlags": SECCOMP_FLAGS,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {"modes": MEMORY_POLICIES, "flags": MEMORY_POLICY_FLAGS},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false",
            "io.coracle.version": env!("CARGO_PKG_VERSION"),
        },
        "potentiallyUnsafeConfigAnnotations": ["bundle", "org.systemd.property."],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_features_document() {
        let features: oci_spec::runtime::Features = serde_json::from_value(document()).unwrap();
        assert_eq!(features.oci_version_max(), SPEC_VERSION);
        assert!(document()["mountOptions"].as_array().unwrap().contains(&json!("rro")));
    }
}
