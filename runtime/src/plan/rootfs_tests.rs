use super::*;
use serde_json::json;

fn spec(value: serde_json::Value) -> Spec {
    let mut value = value;
    value["ociVersion"] = "1.2.0".into();
    serde_json::from_value(value).unwrap()
}

fn plan(value: serde_json::Value) -> Result<RootfsPlan, Vec<String>> {
    plan_rootfs(&spec(value), Path::new("/bundle"), &HostFacts::example())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_whole_plan() {
    let found = plan(json!({
        "root": {"path": "rootfs", "readonly": true},
        "process": {"cwd": "/work/../srv", "args": ["x"], "user": {"uid": 0, "gid": 0}},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "user"}, {"type": "cgroup", "path": "/x"}],
            "rootfsPropagation": "rshared",
            "maskedPaths": ["/proc/kcore", "/proc/kcore", "/a/../b"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "label"
        }
    }))
    .unwrap();
    assert_eq!(found.root, Path::new("/bundle/rootfs"));
    assert_eq!(found.cwd.as_deref(), Some(Path::new("/srv")));
    assert!(found.readonly && found.mount_namespace && found.user_namespace && found.cgroup_namespace);
    assert_eq!(found.propagation, Some(MountPropagationFlags::SHARED | MountPropagationFlags::REC));
    assert_eq!(found.masked_paths, [Path::new("/proc/kcore"), Path::new("/b")]);
    assert_eq!(found.readonly_paths, [Path::new("/proc/sys")]);
    assert_eq!(found.mount_label.as_deref(), Some("label"));
    let order: Vec<_> = found.mounts.iter().map(|m| m.destination.as_path()).collect();
    assert_eq!(order, [Path::new("/proc"), Path::new("/dev")]);
    assert!(!found.devices.enabled, "a bound /dev is left alone");
    assert_eq!(found.cgroup_v1, None);
}

#[test]
fn problems_are_reported_at_once() {
    let problems = plan(json!({
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/", "type": "tmpfs"}],
        "linux": {
            "namespaces": [],
            "rootfsPropagation": "sideways",
            "maskedPaths": ["/x"],
            "devices": [{"path": "/dev/x", "type": "a"}]
        }
    }))
    .unwrap_err();
    assert_eq!(
        problems,
        [
            "mounts[0]: mountpoint is on the top of rootfs",
            "linux.devices[0]: invalid device type \"a\" of /dev/x",
            "linux.rootfsPropagation: rootfsPropagation=sideways is not supported",
            "linux.namespaces: unable to restrict sys entries without a private MNT namespace",
            "linux.namespaces: root.readonly and mounts need a private MNT namespace",
        ]
    );
}

#[test]
fn a_container_without_mount_namespace_may_only_have_a_root() {
    let found = plan(json!({"root": {"path": "/r"}, "linux": {"namespaces": [{"type": "pid"}]}})).unwrap();
    assert!(!found.mount_namespace);
    assert_eq!(found.root, Path::new("/r"));
}
