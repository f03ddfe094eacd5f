//! Namespaces and id mappings of a container; sysctls belong to the sandbox, whose namespaces they are.

use k8s_cri::v1::{IdMapping, LinuxContainerSecurityContext, NamespaceMode, NamespaceOption};
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
    join("user", &sandbox.userns);
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
    if sandbox.userns.is_none() && wants_user_namespace(&options) {
        return Err(Invalid::Field {
            field: "linux.security_context.namespace_options.userns_options",
            why: "the pod was made without a user namespace".into(),
        });
    }
    Ok(Value::Array(list))
}

fn wants_user_namespace(options: &NamespaceOption) -> bool {
    options.userns_options.as_ref().is_some_and(|user| user.mode() == NamespaceMode::Pod)
}

pub(super) fn mappings(list: &[IdMapping]) -> Value {
    list.iter()
        .map(|m| json!({"containerID": m.container_id, "hostID": m.host_id, "size": m.length}))
        .collect()
}
