//! Which kernel parameters a container may set: those of its own namespaces. Anything else would change the host.

use oci_spec::runtime::Spec;

use super::Problem;
use super::namespaces::{Kind, NamespacePlan};
use crate::init::sysctl::path_of;

const IPC: [&str; 10] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "kernel/msg_next_id",
    "kernel/sem_next_id",
];

/// Checks `linux.sysctl` against the namespaces; pairs in order of key.
///
/// # Errors
/// All keys that are not the container's own.
pub fn plan_sysctls(spec: &Spec, namespaces: &NamespacePlan) -> Result<Vec<(String, String)>, Vec<Problem>> {
    let map = spec.linux().as_ref().and_then(|l| l.sysctl().as_ref());
    let mut pairs: Vec<(String, String)> =
        map.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    pairs.sort();
    let hostname = spec.hostname().as_ref().is_some_and(|h| !h.is_empty());
    let refuse = |key: &String| {
        refusal(key, namespaces, hostname).map(|text| Problem::new(format!("linux.sysctl.{key}"), text))
    };
    let problems: Vec<Problem> = pairs.iter().filter_map(|(key, _)| refuse(key)).collect();
    if problems.is_empty() { Ok(pairs) } else { Err(problems) }
}

fn refusal(key: &str, namespaces: &NamespacePlan, hostname: bool) -> Option<String> {
    let path = path_of(key);
    let need = |kind: Kind| {
        (!namespaces.is_private(kind))
            .then(|| format!("sysctl {key:?} is not allowed in the hosts {} namespace", kind.proc_name()))
    };
    if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        return need(Kind::Ipc);
    }
    if path.starts_with("net/") {
        return need(Kind::Net);
    }
    if path.starts_with("user/") {
        return need(Kind::User);
    }
    match path.as_str() {
        "kernel/domainname" => need(Kind::Uts),
        "kernel/hostname" if hostname => Some(format!("sysctl: hostname conflicts with {key:?}")),
        "kernel/hostname" => need(Kind::Uts),
        _ => Some(format!("sysctl {key:?} is not in a separate kernel namespace")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HostFacts;
    use crate::plan::namespaces::plan_namespaces;
    use serde_json::json;

    #[test]
    fn only_own_namespaces() {
        let spec: Spec = serde_json::from_value(json!({"ociVersion": "1.0.2", "linux": {
            "namespaces": [{"type": "network"}],
            "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "vm.swappiness": "1"},
        }}))
        .unwrap();
        let namespaces = plan_namespaces(&spec, &HostFacts::example()).unwrap();
        let problems = plan_sysctls(&spec, &namespaces).unwrap_err();
        let texts: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(
            texts,
            [
                "sysctl \"kernel.shmmax\" is not allowed in the hosts ipc namespace",
                "sysctl \"vm.swappiness\" is not in a separate kernel namespace",
            ]
        );
    }
}
