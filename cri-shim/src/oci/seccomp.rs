//! The seccomp profile of a container.
//!
//! `RuntimeDefault` refuses what a container has no business with: system calls that change the host's kernel, clock,
//! modules, mounts or other processes' memory, unless the matching capability was added; everything else is allowed.

use k8s_cri::v1::{LinuxContainerSecurityContext, security_profile::ProfileType};
use serde_json::{Value, json};

use super::{Invalid, Request, capabilities};

/// A capability and the system calls that are refused without it.
const GUARDED: &[(&str, &[&str])] = &[
    (
        "CAP_SYS_ADMIN",
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
            "bpf",
            "swapon",
            "swapoff",
            "lsm_set_self_attr",
            "open_tree_attr",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot", "kexec_load", "kexec_file_load"]),
    (
        "CAP_SYS_MODULE",
        &["create_module", "delete_module", "init_module", "finit_module", "query_module", "get_kernel_syms"],
    ),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    (
        "CAP_SYS_TIME",
        &[
            "settimeofday",
            "stime",
            "clock_settime",
            "clock_settime64",
            "clock_adjtime",
            "clock_adjtime64",
            "adjtimex",
        ],
    ),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    (
        "CAP_SYS_NICE",
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
            "migrate_pages",
            "move_pages",
        ],
    ),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
];

/// Refused whatever the capabilities: keyrings are not namespaced, the rest is an attack surface without users.
const REFUSED: &[&str] = &[
    "add_key",
    "keyctl",
    "request_key",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "nfsservctl",
    "uselib",
    "ustat",
    "sysfs",
    "_sysctl",
    "vm86",
    "vm86old",
    "afs_syscall",
    "tuxcall",
    "security",
    "vserver",
    "remap_file_pages",
];

/// `CLONE_NEW*` bits without `CLONE_NEWTIME`, which shares its bit with the exit signal.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

pub(super) fn for_container(
    request: &Request<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<Option<Value>, Invalid> {
    let Some(profile) = security.seccomp.as_ref().filter(|_| !security.privileged) else { return Ok(None) };
    match profile.profile_type() {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => Ok(Some(runtime_default(security))),
        ProfileType::Localhost => {
            request.localhost_seccomp.cloned().map(Some).ok_or_else(|| Invalid::Field {
                field: "seccomp.localhost_ref",
                why: format!("profile {:?} was not read", profile.localhost_ref),
            })
        }
    }
}

/// The default profile, given what the container may do.
#[must_use]
pub fn runtime_default(security: &LinuxContainerSecurityContext) -> Value {
    let sets = capabilities::for_container(security, &[]);
    let has = |name: &str| sets["bounding"].as_array().is_some_and(|s| s.iter().any(|c| c == name));
    let mut refused: Vec<&str> = REFUSED.to_vec();
    for (capability, calls) in GUARDED {
        if !has(capability) {
            refused.extend(calls.iter().filter(|c| **c != "syslog" || !has("CAP_SYS_ADMIN")));
        }
    }
    refused.sort_unstable();
    refused.dedup();
    let mut rules = vec![json!({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": 1})];
    if !has("CAP_SYS_ADMIN") {
        // clone3 hides its flags in memory: ENOSYS makes the C library fall back to clone, whose flags are filtered.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
        // s390's clone takes the stack first, then the flags.
        let flags = usize::from(std::env::consts::ARCH == "s390x");
        for bit in (0..64).map(|b| 1u64 << b).filter(|b| CLONE_NAMESPACES & b != 0) {
            rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [
                {"index": flags, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}]}));
        }
    }
    rules.push(json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [
        {"index": 0, "value": AF_ALG, "op": "SCMP_CMP_EQ"}]}));
    rules.push(json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [
        {"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_EQ"}]}));
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures(), "syscalls": rules})
}

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        "powerpc64" => &["SCMP_ARCH_PPC64LE"],
        _ => &[],
    }
}
