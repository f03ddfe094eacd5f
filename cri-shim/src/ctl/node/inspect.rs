//! `coraclectl inspect` of pods and containers: the daemon's status with everything it adds when asked for more.

use std::collections::HashMap;

use k8s_cri::v1::{ContainerStatusRequest, PodSandboxStatusRequest};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Node;
use super::names::{Found, Known, state};
use crate::ctl::failure::Failure;

/// Maps whose keys are the user's and not ours to rewrite.
const USERS_KEYS: [&str; 4] = ["labels", "annotations", "sysctls", "unified"];

pub(in crate::ctl) fn inspect(node: &Node, name: &str) -> Result<Value, Failure> {
    match Known::load(node)?.any(name)? {
        Found::Pod(pod) => {
            let request = PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: true };
            let answer = node.ask(node.cri().pod_sandbox_status(request))?;
            let mut status = described(&answer.status);
            let ready = status["state"] == 0;
            status["state"] = json!(if ready { "ready" } else { "not ready" });
            Ok(json!({"kind": "pod", "status": status, "info": parsed(&answer.info)}))
        }
        Found::Container(container) => {
            let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: true };
            let answer = node.ask(node.cri().container_status(request))?;
            let mut status = described(&answer.status);
            status["state"] = json!(state(answer.status.map_or(-1, |status| status.state)));
            Ok(json!({"kind": "container", "status": status, "info": parsed(&answer.info)}))
        }
    }
}

fn described(message: &impl Serialize) -> Value {
    camel_case(serde_json::to_value(message).unwrap_or_default())
}

/// Values of `info` are JSON in strings by custom.
fn parsed(info: &HashMap<String, String>) -> Value {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    info.iter().map(|(key, text)| (key.clone(), value(text))).collect::<Map<_, _>>().into()
}

/// The field names that the CRI's JSON has.
fn camel_case(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let renamed = fields.into_iter().map(|(key, value)| {
                let value = if USERS_KEYS.contains(&key.as_str()) { value } else { camel_case(value) };
                (camel(&key), value)
            });
            renamed.collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(camel_case).collect(),
        other => other,
    }
}

fn camel(snake: &str) -> String {
    let mut parts = snake.split('_');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_rewritten() {
        let value = json!({"created_at": 1, "labels": {"a_b": "c_d"}, "mounts": [{"host_path": "/x_y"}]});
        let expected = json!({"createdAt": 1, "labels": {"a_b": "c_d"}, "mounts": [{"hostPath": "/x_y"}]});
        assert_eq!(camel_case(value), expected);
    }
}
