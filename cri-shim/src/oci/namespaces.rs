//! Namespaces, id mappings and sysctls of a container.

use k8s_cri::v1::{IdMapping, LinuxContainerSecurityContext, NamespaceMode};
use serde_json::{Value, json};

use super::{Invalid, Request};

/// The namespaces of a container: joined ones carry a path, new ones none, the host's are left out.
pub(super) fn for_container(
    request: &Request<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<Value, Invalid> {
    let sandbox = request.sandbox;
    let options = security.namespace_options.clone().unwrap_or_default();
    let mut list = vec![json!({"type": "mount"})];
    let mut join = |kind: &str, path: &Option<std::path::PathBuf>| {
        if let Some(path) = path {
            list.push(json!({"type": kind, "path": path}));
        }
    };
    join("network", &sandbox.netns);
    join("ipc", &sandbox.ipcns);
    join("uts", &sandbox.utsns);
    match options.pid() {
        NamespaceMode::Container => list.push(json!({"type": "pid"})),
        NamespaceMode::Pod | NamespaceMode::Target => {
            let path = sandbox.pidns.as_ref().ok_or_else(|| Invalid::Field {
                field: "linux.security_context.namespace_options.pid",
                why: "the pod has no such PID namespace to join".into(),
            })?;
            list.push(json!({"type": "pid", "path": path}));
        }
        NamespaceMode::Node => {}
    }
    if request.cgroup2 && !security.privileged {
        list.push(json!({"type": "cgroup"}));
    }
    if user_mappings(security).is_some() {
        list.push(json!({"type": "user"}));
    }
    Ok(Value::Array(list))
}

/// Adds the mappings of a pod with a user namespace. Sysctls belong to the sandbox, whose namespaces they are.
pub(super) fn add_sysctls_and_mappings(
    _request: &Request<'_>,
    security: &LinuxContainerSecurityContext,
    linux: &mut Value,
) {
    if let Some((uids, gids)) = user_mappings(security) {
        linux["uidMappings"] = mappings(&uids);
        linux["gidMappings"] = mappings(&gids);
    }
}

fn user_mappings(security: &LinuxContainerSecurityContext) -> Option<(Vec<IdMapping>, Vec<IdMapping>)> {
    let options = security.namespace_options.as_ref()?.userns_options.as_ref()?;
    (options.mode() == NamespaceMode::Pod).then(|| (options.uids.clone(), options.gids.clone()))
}

pub(super) fn mappings(list: &[IdMapping]) -> Value {
    list.iter()
        .map(|m| json!({"containerID": m.container_id, "hostID": m.host_id, "size": m.length}))
        .collect()
}
