//! What a group uses, in the form of runc's `events`: the numbers that its readers take (podman, Docker, cAdvisor).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::directory::Directory;

/// Reads processor time, memory and processes; what is not there is left out.
pub(super) fn read(directories: &BTreeMap<String, Directory>) -> Value {
    let mut data = json!({"cpu": {"usage": {"total": 0, "kernel": 0, "user": 0}, "throttling": {}}, "memory": {}, "pids": {}, "blkio": {}});
    match directories.get("").filter(|_| directories.len() == 1) {
        Some(unified) => read_v2(unified, &mut data),
        None => read_v1(directories, &mut data),
    }
    data
}

fn read_v1(directories: &BTreeMap<String, Directory>, data: &mut Value) {
    if let Some(cpu) = directories.get("cpuacct") {
        data["cpu"]["usage"]["total"] = number(cpu, "cpuacct.usage");
        data["cpu"]["usage"]["kernel"] = number(cpu, "cpuacct.usage_sys");
        data["cpu"]["usage"]["user"] = number(cpu, "cpuacct.usage_user");
    }
    if let Some(memory) = directories.get("memory") {
        data["memory"]["usage"] = json!({
            "limit": number(memory, "memory.limit_in_bytes"),
            "usage": number(memory, "memory.usage_in_bytes"),
            "max": number(memory, "memory.max_usage_in_bytes"),
            "failcnt": number(memory, "memory.failcnt"),
        });
        let raw = table(memory, "memory.stat");
        data["memory"]["cache"] = raw.get("cache").cloned().unwrap_or(json!(0));
        data["memory"]["raw"] = raw;
    }
    if let Some(pids) = directories.get("pids") {
        data["pids"] = json!({"current": number(pids, "pids.current"), "limit": limit(pids)});
    }
}

fn read_v2(unified: &Directory, data: &mut Value) {
    let cpu = table(unified, "cpu.stat");
    let nanoseconds = |key: &str| json!(cpu.get(key).and_then(Value::as_u64).unwrap_or(0) * 1000);
    data["cpu"]["usage"] = json!({
        "total": nanoseconds("usage_usec"), "kernel": nanoseconds("system_usec"), "user": nanoseconds("user_usec"),
    });
    let raw = table(unified, "memory.stat");
    data["memory"]["usage"] = json!({
        "limit": number(unified, "memory.max"),
        "usage": number(unified, "memory.current"),
        "max": number(unified, "memory.peak"),
        "failcnt": 0,
    });
    data["memory"]["cache"] = raw.get("file").cloned().unwrap_or(json!(0));
    data["memory"]["raw"] = raw;
    data["pids"] = json!({"current": number(unified, "pids.current"), "limit": limit(unified)});
}

fn number(directory: &Directory, file: &str) -> Value {
    json!(directory.number(file).unwrap_or(0))
}

/// runc shows "no limit" as 0.
fn limit(directory: &Directory) -> Value {
    json!(directory.number("pids.max").ok().filter(|limit| *limit != u64::MAX).unwrap_or(0))
}

/// Lines of a key and a number.
fn table(directory: &Directory, file: &str) -> Value {
    let text = directory.read(file).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?)))
    });
    Value::Object(pairs.collect())
}
