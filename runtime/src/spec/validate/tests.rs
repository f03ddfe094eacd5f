use super::*;
use serde_json::{Value, json};

fn base() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]},
    })
}

/// The base with values put at JSON pointers.
fn report(changes: &[(&str, Value)], facts: &Facts) -> Report {
    let mut value = base();
    for (pointer, new) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.insert(key.to_owned(), new.clone());
    }
    validate(&serde_json::from_value(value).unwrap(), facts)
}

fn texts(list: &[Problem]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn one_problem_each() {
    let all =
        json!([{"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "user"}]);
    for (pointer, new, want) in [
        ("/process/cwd", json!("x"), "process.cwd: Cwd must be an absolute path"),
        ("/process/cwd", json!(""), "process.cwd: Cwd property must not be empty"),
        ("/process/args", json!([]), "process.args: args must not be empty"),
        ("/process/args", json!(["a\0b"]), "process.args[0]: contains nul byte"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]),
            "process.rlimits[0]: RLIMIT_CPU: soft limit 2 is above hard limit 1",
        ),
        ("/process/env", json!(["X"]), "process.env[0]: invalid environment variable: \"X\""),
        (
            "/hooks",
            json!({"poststop": [{"path": "/a", "timeout": 0}]}),
            "hooks.poststop[0].timeout: timeout must be greater than zero",
        ),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: 1001 is not between -1000 and 1000"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "mount"}]),
            "linux.namespaces[1]: malformed spec file: duplicated ns \"mount\"",
        ),
        (
            "/linux/namespaces",
            all,
            "linux.namespaces: user namespaces enabled, but no namespace path to join nor mappings to apply specified",
        ),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1}}),
            "linux.timeOffsets: time namespace offsets specified, but time namespace isn't enabled in the config",
        ),
        (
            "/linux/sysctl",
            json!({"net/ipv4/ip_forward": "1"}),
            "linux.sysctl.net/ipv4/ip_forward: sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.shmmax": "1"}),
            "linux.sysctl.kernel.shmmax: sysctl \"kernel.shmmax\" is not allowed in the hosts ipc namespace",
        ),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "linux.sysctl.vm.swappiness: sysctl \"vm.swappiness\" is not in a separate kernel namespace",
        ),
        (
            "/linux/netDevices",
            json!({"eth0": {}}),
            "linux.netDevices: unable to move network devices without a NET namespace",
        ),
        (
            "/linux/rootfsPropagation",
            json!("x"),
            "linux.rootfsPropagation: rootfsPropagation=x is not supported",
        ),
        (
            "/linux/resources",
            json!({"devices": [{"allow": false}]}),
            "linux.resources.devices[0]: device access at 0 field cannot be empty",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "tmpfs",
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}]),
            "mounts[0]: id-mapped mounts are only supported for bind-mounts",
        ),
    ] {
        let got = report(&[(pointer, new)], &Facts::example());
        assert_eq!(texts(&got.problems), [want], "{pointer}");
        assert_eq!(texts(&got.warnings), Vec::<String>::new(), "{pointer}");
    }
}

#[test]
fn everything_at_once() {
    let got = report(
        &[("/process/cwd", json!("x")), ("/process/args", json!([])), ("/process/oomScoreAdj", json!(2000))],
        &Facts::example(),
    );
    assert_eq!(got.problems.len(), 3);
}

#[test]
fn accepted_with_a_warning() {
    for (pointer, new, field) in [
        ("/ociVersion", json!("x"), "ociVersion"),
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/mounts", json!([{"destination": "a"}]), "mounts[0].destination"),
        ("/hooks", json!({"prestart": [{"path": "a"}]}), "hooks.prestart[0].path"),
        ("/linux/resources", json!({"memory": {"swappiness": 1}}), "linux.resources.memory.swappiness"),
        ("/root", json!({"path": ""}), "root.path"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]), "linux.uidMappings"),
    ] {
        let got = report(&[(pointer, new)], &Facts::example());
        assert_eq!(got.problems, [], "{pointer}");
        assert_eq!(got.warnings.iter().map(|w| w.field.as_str()).collect::<Vec<_>>(), [field]);
    }
}

#[test]
fn the_host_decides() {
    let v1 = Facts { cgroup_unified: false, ..Facts::example() };
    let unified = ("/linux/resources", json!({"unified": {"memory.max": "1"}}));
    assert_eq!(report(std::slice::from_ref(&unified), &v1).problems.len(), 1);
    assert_eq!(report(&[unified], &Facts::example()).problems, []);
    let rootless = Facts { rootless_euid: true, ..Facts::example() };
    assert_eq!(
        texts(&report(&[], &rootless).problems),
        ["linux.namespaces: rootless container requires user namespaces"]
    );
}

#[test]
fn separators_of_sysctls() {
    for (given, want) in [
        ("net/ipv4/conf/eno2.100/rp_filter", "net.ipv4.conf.eno2/100.rp_filter"),
        ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
        ("", ""),
        ("x", "x"),
    ] {
        assert_eq!(sysctl::dotted(given), want);
    }
}
