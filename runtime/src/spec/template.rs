//! The starter configuration that `spec` writes: runc's, property by property.

use serde_json::{Value, json};

use crate::state::SPEC_VERSION;

const TEMPLATE: &str = include_str!("config.json.in");

/// The configuration for root; a cgroup namespace only where the host has unified groups, as runc.
#[must_use]
pub fn template(cgroup_unified: bool) -> String {
    let text = TEMPLATE.replace("@VERSION@", SPEC_VERSION);
    if !cgroup_unified {
        return text;
    }
    let mut value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    if let Some(namespaces) = value.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        namespaces.push(json!({"type": "cgroup"}));
    }
    render(&value)
}

/// The configuration for a user without privileges: own user namespace, the host's network and `/sys`, no limits.
#[must_use]
pub fn rootless(cgroup_unified: bool, uid: u32, gid: u32) -> String {
    let mut value: Value = serde_json::from_str(&template(cgroup_unified)).unwrap_or(Value::Null);
    if let Some(linux) = value.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("resources");
        linux.insert("uidMappings".into(), json!([{"containerID": 0, "hostID": uid, "size": 1}]));
        linux.insert("gidMappings".into(), json!([{"containerID": 0, "hostID": gid, "size": 1}]));
        if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            namespaces.retain(|ns| ns["type"] != "network");
            namespaces.push(json!({"type": "user"}));
        }
    }
    for mount in value.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        rootless_mount(mount);
    }
    render(&value)
}

fn rootless_mount(mount: &mut Value) {
    if mount["destination"] == "/sys" {
        *mount = json!({
            "destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
        });
    }
    if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
        let names_an_id = |option: &str| option.starts_with("gid=") || option.starts_with("uid=");
        options.retain(|option| !option.as_str().is_some_and(names_an_id));
    }
}

fn render(value: &Value) -> String {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // Writing a value of JSON to memory cannot fail.
    let _ = value.serialize(&mut serializer);
    bytes.push(b'\n');
    String::from_utf8_lossy(&bytes).into_owned()
}
