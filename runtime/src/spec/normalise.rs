//! Puts right what Go's JSON decoder accepts and the strict types do not, and finds what is really wrong.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, MemoryPolicyFlagType, MemoryPolicyModeType, Spec};
use serde_json::{Map, Value, json};

use crate::plan::Problem;

const CAPABILITY_SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// Sections that Linux's runc does not look at.
const OTHER_PLATFORMS: [&str; 4] = ["solaris", "windows", "vm", "zos"];

/// What every process property needs beside it to be read on its own.
const PROCESS_BASE: [(&str, &str); 2] = [("user", "{}"), ("cwd", "\"\"")];

/// Objects whose properties can be read one by one, so that an error is traced into them.
const OPEN_OBJECTS: [&str; 5] = ["", "process", "linux", "linux.resources", "hooks"];

/// Normalises a configuration in place; returns what was left out.
pub fn spec(value: &mut Value) -> Vec<Problem> {
    strip_nulls(value);
    let mut warnings = Vec::new();
    if let Some(process_value) = value.get_mut("process") {
        warnings = process(process_value);
    }
    if let Some(all) = value.as_object_mut() {
        for name in OTHER_PLATFORMS.iter().filter(|name| all.remove(**name).is_some()) {
            warnings.push(Problem::new(*name, "section of another platform is ignored"));
        }
    }
    if let Some(resources) = value.pointer_mut("/linux/resources").and_then(Value::as_object_mut) {
        // A limit has been optional since 1.2: no limit given leaves it alone.
        if resources.get("pids").is_some_and(|pids| pids.get("limit").is_none()) {
            resources.remove("pids");
        }
    }
    for name in ["namespaces", "devices"] {
        drop_empty_strings(value.pointer_mut(&format!("/linux/{name}")), "path");
    }
    warnings
}

/// Whether a configuration that reads as it stands would come out of [`spec`] unchanged and without a warning. What does not
/// read as it stands (a null for a number, an unknown capability) is none of its business.
#[must_use]
pub fn is_plain(spec: &Spec) -> bool {
    let foreign =
        spec.solaris().is_some() || spec.windows().is_some() || spec.vm().is_some() || spec.zos().is_some();
    let linux = spec.linux().as_ref();
    let empty = |path: &std::path::Path| path.as_os_str().is_empty();
    let unnamed = linux.is_some_and(|linux| {
        let namespaces = linux.namespaces().iter().flatten().filter_map(|ns| ns.path().as_deref());
        namespaces.chain(linux.devices().iter().flatten().map(|device| device.path().as_path())).any(empty)
    });
    // A limit that is missing reads as 0.
    let pids =
        linux.and_then(|linux| linux.resources().as_ref()).and_then(|resources| resources.pids().as_ref());
    let unlimited = pids.is_some_and(|pids| pids.limit() == 0);
    let process = spec.process().as_ref();
    let limits: Vec<_> =
        process.iter().filter_map(|p| p.rlimits().as_ref()).flatten().map(|l| l.typ()).collect();
    let repeated = (1..limits.len()).any(|index| limits[..index].contains(&limits[index]));
    let prioritised = process.is_some_and(|process| process.io_priority().is_some());
    let capabilities = process.and_then(|process| process.capabilities().as_ref());
    let powerless = capabilities.is_some_and(|sets| {
        let has = |set: &Option<HashSet<Capability>>, name| set.as_ref().is_some_and(|s| s.contains(name));
        let mut ambient = sets.ambient().iter().flatten();
        ambient.any(|name| !has(sets.permitted(), name) || !has(sets.inheritable(), name))
    });
    !(foreign || unnamed || unlimited || repeated || prioritised || powerless)
}

/// Normalises a process in place; returns the capabilities that were left out.
pub fn process(value: &mut Value) -> Vec<Problem> {
    strip_nulls(value);
    let Some(process) = value.as_object_mut() else { return Vec::new() };
    for (key, base) in PROCESS_BASE {
        if !process.contains_key(key) {
            process.insert(key.to_owned(), base.parse().unwrap_or(Value::Null));
        }
    }
    // Go's zero value of the priority's structure.
    if process.get("ioPriority").is_some_and(|p| p.as_object().is_some_and(Map::is_empty)) {
        process.remove("ioPriority");
    }
    if let Some(scheduler) = process.get_mut("scheduler") {
        name_scheduler_flags(scheduler);
    }
    let mut warnings = process.get_mut("rlimits").map(drop_repeated_rlimits).unwrap_or_default();
    if let Some(capabilities) = process.get_mut("capabilities") {
        warnings
            .extend(CAPABILITY_SETS.iter().filter_map(|set| drop_unknown_capabilities(capabilities, set)));
        warnings.extend(ambient_without_effect(capabilities));
    }
    warnings
}

/// The types have the flag under a name that the specification does not.
fn name_scheduler_flags(scheduler: &mut Value) {
    for flag in scheduler["flags"].as_array_mut().into_iter().flatten() {
        if flag == "SCHED_FLAG_RESET_ON_FORK" {
            *flag = json!("SCHED_RESET_ON_FORK");
        }
    }
}

/// The specification forbids a limit that is given twice; runc sets both, so that the last one counts.
fn drop_repeated_rlimits(rlimits: &mut Value) -> Vec<Problem> {
    let Some(list) = rlimits.as_array_mut() else { return Vec::new() };
    let kinds: Vec<Value> = list.iter().map(|limit| limit["type"].clone()).collect();
    let mut warnings = Vec::new();
    for index in (0..list.len()).rev() {
        if kinds[index].is_string() && kinds[index + 1..].contains(&kinds[index]) {
            list.remove(index);
            let text = format!("{} is given again, the last one counts", kinds[index]);
            warnings.push(Problem::new(format!("process.rlimits[{index}]"), text));
        }
    }
    warnings
}

/// runc warns of capabilities that it does not know, and goes on without them.
fn drop_unknown_capabilities(capabilities: &mut Value, set: &str) -> Option<Problem> {
    let list = capabilities.get_mut(set)?.as_array_mut()?;
    let known = |name: &Value| name.as_str().is_none_or(|name| capability(name).is_some());
    let unknown: Vec<String> =
        list.iter().filter(|name| !known(name)).filter_map(Value::as_str).map(str::to_owned).collect();
    list.retain(known);
    if unknown.is_empty() {
        return None;
    }
    let text = format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "));
    Some(Problem::new(format!("process.capabilities.{set}"), text))
}

/// The kernel raises a capability to the ambient set only where it is permitted and inheritable.
fn ambient_without_effect(capabilities: &Value) -> Vec<Problem> {
    let has = |set: &str, name: &Value| capabilities[set].as_array().is_some_and(|list| list.contains(name));
    let ambient = capabilities["ambient"].as_array().into_iter().flatten();
    ambient
        .filter(|name| !has("permitted", name) || !has("inheritable", name))
        .filter_map(Value::as_str)
        .map(|name| {
            let text = format!("can't raise ambient capability {name}: operation not permitted");
            Problem::new("process.capabilities.ambient", text)
        })
        .collect()
}

/// The capability of a name: upper case and with its prefix, as in runc's table.
#[must_use]
pub fn capability(name: &str) -> Option<Capability> {
    if !name.starts_with("CAP_") || name != name.to_ascii_uppercase() {
        return None;
    }
    serde_json::from_value(Value::String(name.to_owned())).ok()
}

/// In Go `null` leaves the zero value, which is what an absent property leaves too.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `"path": ""` is Go's way to say that there is none.
fn drop_empty_strings(list: Option<&mut Value>, key: &str) {
    let Some(list) = list.and_then(Value::as_array_mut) else { return };
    for entry in list.iter_mut().filter_map(Value::as_object_mut) {
        if entry.get(key).and_then(Value::as_str) == Some("") {
            entry.remove(key);
        }
    }
}

/// Finds every property that does not read, by reading each alone. `whole` is the error of the whole, if none is found.
pub fn locate(value: &Value, whole: &serde_json::Error) -> Vec<Problem> {
    let mut problems = Vec::new();
    descend("", value, &mut problems);
    if problems.is_empty() {
        problems.push(Problem::new("config.json", whole.to_string()));
    }
    problems
}

fn descend(path: &str, value: &Value, problems: &mut Vec<Problem>) {
    let Err(error) = serde_json::from_value::<Spec>(alone(path, value)) else { return };
    let before = problems.len();
    match value {
        Value::Object(map) if OPEN_OBJECTS.contains(&path) => {
            for (key, child) in map {
                let child_path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                descend(&child_path, child, problems);
            }
        }
        Value::Array(list) => {
            for (index, child) in list.iter().enumerate() {
                if let Err(error) = serde_json::from_value::<Spec>(alone(path, &json!([child]))) {
                    problems.push(Problem::new(format!("{path}[{index}]"), error.to_string()));
                }
            }
        }
        Value::Object(policy) if path == "linux.memoryPolicy" => memory_policy(policy, problems),
        _ => {}
    }
    if problems.len() == before {
        problems.push(Problem::new(path, error.to_string()));
    }
}

/// runc's words for a policy that cannot be read.
fn memory_policy(policy: &Map<String, Value>, problems: &mut Vec<Problem>) {
    let mode = policy.get("mode").and_then(Value::as_str).unwrap_or_default();
    if serde_json::from_value::<MemoryPolicyModeType>(json!(mode)).is_err() {
        let text = format!("invalid memory policy mode {mode:?}");
        problems.push(Problem::new("linux.memoryPolicy.mode", text));
    }
    for flag in policy.get("flags").and_then(Value::as_array).into_iter().flatten() {
        if serde_json::from_value::<MemoryPolicyFlagType>(flag.clone()).is_err() {
            let text = format!("invalid memory policy flag {flag}");
            problems.push(Problem::new("linux.memoryPolicy.flags", text));
        }
    }
}

/// A configuration that has nothing but `value` at `path`.
fn alone(path: &str, value: &Value) -> Value {
    if path.is_empty() {
        return value.clone();
    }
    let mut wrapped = value.clone();
    let mut rest = path;
    loop {
        let (parent, key) = rest.rsplit_once('.').unwrap_or(("", rest));
        let mut object = Map::new();
        if parent == "process" {
            for (name, base) in PROCESS_BASE {
                object.insert(name.to_owned(), base.parse().unwrap_or(Value::Null));
            }
        }
        object.insert(key.to_owned(), wrapped);
        wrapped = Value::Object(object);
        if parent.is_empty() {
            return wrapped;
        }
        rest = parent;
    }
}
