//! The seccomp profile of a container.
//!
//! `RuntimeDefault` allows what containers are known to need (`seccomp_table`), more with a capability that opens the call
//! anyway, and refuses everything else: equal in effect to the default profiles of Docker and containerd.

use k8s_cri::v1::{LinuxContainerSecurityContext, security_profile::ProfileType};
use serde_json::{Value, json};

use super::seccomp_table::{ALLOWED, OF_ARCHITECTURE, PERSONALITIES, WITH_CAPABILITY};
use super::{Invalid, Request, capabilities};

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
    let mut allowed: Vec<&str> = ALLOWED.to_vec();
    for (_, calls) in WITH_CAPABILITY.iter().filter(|(capability, _)| has(capability)) {
        allowed.extend(*calls);
    }
    for (_, calls) in OF_ARCHITECTURE.iter().filter(|(archs, _)| archs.contains(&std::env::consts::ARCH)) {
        allowed.extend(*calls);
    }
    allowed.sort_unstable();
    allowed.dedup();
    let mut rules = vec![json!({"names": allowed, "action": ALLOW})];
    let mut allow_if = |call: &str, index: usize, operator: &str, value: u64, second: u64| {
        rules.push(json!({"names": [call], "action": ALLOW, "args": [
            {"index": index, "value": value, "valueTwo": second, "op": operator}]}));
    };
    for domain in PERSONALITIES {
        allow_if("personality", 0, "SCMP_CMP_EQ", *domain, 0);
    }
    // Every family but the kernel's cryptography and the hypervisor's sockets, which no namespace separates. Two
    // conditions on one argument would be alternatives, so the families are named by ranges.
    allow_if("socket", 0, "SCMP_CMP_LT", AF_ALG, 0);
    allow_if("socket", 0, "SCMP_CMP_EQ", AF_ALG + 1, 0);
    allow_if("socket", 0, "SCMP_CMP_GT", AF_VSOCK, 0);
    if !has("CAP_SYS_ADMIN") {
        // s390's clone takes the stack first, then the flags.
        let flags = usize::from(std::env::consts::ARCH == "s390x");
        allow_if("clone", flags, "SCMP_CMP_MASKED_EQ", CLONE_NAMESPACES, 0);
        // clone3 hides its flags in memory: ENOSYS makes the C library fall back to clone, whose flags are filtered.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

const ALLOW: &str = "SCMP_ACT_ALLOW";
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
