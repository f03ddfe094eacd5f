//! Limits and devices of a container.

use std::collections::BTreeMap;

use k8s_cri::v1::{Device, LinuxContainerResources};
use serde_json::{Map, Value, json};

use super::{Invalid, Request};

/// The `linux.resources` of the configuration.
pub(super) fn for_container(request: &Request<'_>, privileged: bool) -> Result<Value, Invalid> {
    let asked = request.config.linux.as_ref().and_then(|l| l.resources.clone()).unwrap_or_default();
    let mut value = limits(&asked)?;
    value["devices"] = device_rules(request, privileged)?;
    Ok(value)
}

/// CRI limits as OCI resources; zero means "not set", as the kubelet sends it. Used at create and at update.
pub fn limits(asked: &LinuxContainerResources) -> Result<Value, Invalid> {
    let mut cpu = Map::new();
    let mut set = |key: &str, value: i64| {
        if value != 0 {
            cpu.insert(key.into(), json!(value));
        }
    };
    set("shares", asked.cpu_shares);
    set("quota", asked.cpu_quota);
    set("period", asked.cpu_period);
    for (key, value) in [("cpus", &asked.cpuset_cpus), ("mems", &asked.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(key.into(), json!(value));
        }
    }
    let mut memory = Map::new();
    if asked.memory_limit_in_bytes != 0 {
        memory.insert("limit".into(), json!(asked.memory_limit_in_bytes));
    }
    if asked.memory_swap_limit_in_bytes != 0 {
        memory.insert("swap".into(), json!(asked.memory_swap_limit_in_bytes));
    }
    let hugepages: Vec<Value> =
        asked.hugepage_limits.iter().map(|h| json!({"pageSize": h.page_size, "limit": h.limit})).collect();
    let unified: BTreeMap<&String, &String> = asked.unified.iter().collect();
    if let Some(name) = unified.keys().find(|k| k.contains('/') || !k.contains('.')) {
        return Err(Invalid::Field {
            field: "resources.unified",
            why: format!("{name:?} is not a cgroup file"),
        });
    }
    let mut value = json!({"cpu": cpu, "memory": memory});
    if !hugepages.is_empty() {
        value["hugepageLimits"] = json!(hugepages);
    }
    if !unified.is_empty() {
        value["unified"] = json!(unified);
    }
    Ok(value)
}

fn device_rules(request: &Request<'_>, privileged: bool) -> Result<Value, Invalid> {
    if privileged {
        return Ok(json!([{"allow": true, "access": "rwm"}]));
    }
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for device in &request.config.devices {
        let (kind, major, minor) = stat_device(request, device)?;
        rules.push(json!({"allow": true, "type": kind.to_string(), "major": major, "minor": minor,
                          "access": permissions(device)?}));
    }
    Ok(json!(rules))
}

/// The `linux.devices` of the configuration.
pub(super) fn devices(request: &Request<'_>, privileged: bool) -> Result<Value, Invalid> {
    let mut list = Vec::new();
    if privileged {
        for (path, kind, major, minor) in request.host_devices {
            list.push(json!({"path": path, "type": kind.to_string(), "major": major, "minor": minor}));
        }
    }
    for device in &request.config.devices {
        let (kind, major, minor) = stat_device(request, device)?;
        let path = if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
        list.retain(|d| d["path"] != path.as_str());
        list.push(json!({"path": path, "type": kind.to_string(), "major": major, "minor": minor}));
    }
    Ok(json!(list))
}

fn stat_device(request: &Request<'_>, device: &Device) -> Result<(char, u32, u32), Invalid> {
    let known = request.host_devices.iter().find(|(path, ..)| *path == device.host_path);
    known.map(|(_, kind, major, minor)| (*kind, *major, *minor)).ok_or_else(|| Invalid::Field {
        field: "devices",
        why: format!("{:?} is no device of this host", device.host_path),
    })
}

fn permissions(device: &Device) -> Result<&str, Invalid> {
    match device.permissions.as_str() {
        "" => Ok("rwm"),
        p if p.chars().all(|c| "rwm".contains(c)) => Ok(p),
        p => Err(Invalid::Field {
            field: "devices",
            why: format!("permissions {p:?} are not made of r, w and m"),
        }),
    }
}
