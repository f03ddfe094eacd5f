use super::*;
use serde_json::json;

fn plan(devices: serde_json::Value, user_namespace: bool) -> Result<DevicesPlan, Vec<Problem>> {
    let spec = serde_json::from_value(json!({"ociVersion": "1.2.0", "linux": {"devices": devices}})).unwrap();
    let mut problems = Vec::new();
    let plan = plan_devices(&spec, &HostFacts::example(), true, user_namespace, &mut problems);
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

fn node(path: &str, node_type: NodeType, number: (u32, u32), mode: u32, ids: (u32, u32)) -> DeviceNode {
    DeviceNode { path: path.into(), node_type, number, mode, uid: ids.0, gid: ids.1 }
}

#[test]
fn defaults_come_first_and_are_overridden() {
    let found = plan(
        json!([
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o20600, "uid": 1, "gid": 2},
            {"path": "/dev/../dev/sda", "type": "b", "major": 8, "minor": 0},
            {"path": "/dev/fifo", "type": "p"},
            {"path": "/dev/u", "type": "u", "major": 9, "minor": 9},
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}
        ]),
        false,
    )
    .unwrap();
    let default = |path, minor| node(path, NodeType::Char, (1, minor), 0o666, (0, 0));
    assert_eq!(
        found.nodes,
        [
            default("/dev/random", 8),
            default("/dev/full", 7),
            node("/dev/tty", NodeType::Char, (5, 0), 0o666, (0, 0)),
            default("/dev/zero", 5),
            default("/dev/urandom", 9),
            node("/dev/null", NodeType::Char, (1, 3), 0o600, (1, 2)),
            node("/dev/sda", NodeType::Block, (8, 0), 0o666, (0, 0)),
            node("/dev/fifo", NodeType::Fifo, (0, 0), 0o666, (0, 0)),
            node("/dev/u", NodeType::Char, (9, 9), 0o666, (0, 0)),
        ]
    );
    assert!(!found.bind);
    let links: Vec<String> =
        found.links.iter().map(|(p, t)| format!("{} {}", p.display(), t.display())).collect();
    assert_eq!(
        links,
        [
            "/dev/ptmx pts/ptmx",
            "/dev/fd /proc/self/fd",
            "/dev/stdin /proc/self/fd/0",
            "/dev/stdout /proc/self/fd/1",
            "/dev/stderr /proc/self/fd/2",
            "/dev/core /proc/kcore",
        ]
    );
}

#[test]
fn a_user_namespace_binds() {
    assert!(plan(json!([]), true).unwrap().bind);
}

#[test]
fn wrong_devices_are_all_reported() {
    let problems = plan(
        json!([
            {"path": "/dev/a", "type": "a"},
            {"path": "/dev/b", "type": "b", "major": -1, "minor": 0},
            {"path": "", "type": "p"}
        ]),
        false,
    )
    .unwrap_err();
    assert_eq!(
        problems,
        [
            Problem::new("linux.devices[0]", "invalid device type \"a\" of /dev/a"),
            Problem::new("linux.devices[1]", "invalid device number -1 of /dev/b"),
            Problem::new("linux.devices[2]", "device without a path"),
        ]
    );
}
