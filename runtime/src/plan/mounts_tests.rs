use super::*;
use serde_json::json;

fn plan_in(mount: serde_json::Value, context: &Context<'_>) -> Result<MountPlan, Vec<String>> {
    let mount: Mount = serde_json::from_value(mount).unwrap();
    let mut problems = Vec::new();
    let plan = plan_mount(3, &mount, context, &mut problems);
    if problems.is_empty() { Ok(plan) } else { Err(problems.into_iter().map(|p| p.to_string()).collect()) }
}

fn plan(mount: serde_json::Value) -> Result<MountPlan, Vec<String>> {
    let facts = HostFacts::example();
    let (bundle, root) = (Path::new("/b"), Path::new("/b/rootfs"));
    plan_in(mount, &Context { bundle, root, facts: &facts, container_idmap: None })
}

#[test]
fn kinds_by_type_and_options() {
    for (mount, kind, fstype, source) in [
        (json!({"destination": "/p", "type": "proc", "source": "proc"}), MountKind::Proc, "proc", "proc"),
        (json!({"destination": "/s", "type": "sysfs", "source": "x"}), MountKind::Sysfs, "sysfs", "x"),
        (json!({"destination": "/c", "type": "cgroup"}), MountKind::Cgroup, "cgroup", ""),
        (json!({"destination": "/c", "type": "cgroup2"}), MountKind::Other("cgroup2".into()), "cgroup2", ""),
        (json!({"destination": "/t", "type": "tmpfs", "source": "t"}), MountKind::Tmpfs, "tmpfs", "t"),
        (json!({"destination": "/q", "type": "mqueue"}), MountKind::Mqueue, "mqueue", ""),
        (
            json!({"destination": "/b", "type": "none", "source": "/h", "options": ["rbind"]}),
            MountKind::Bind,
            "bind",
            "/h",
        ),
        (
            json!({"destination": "/b", "source": "rel", "options": ["bind"]}),
            MountKind::Bind,
            "bind",
            "/b/rel",
        ),
        (json!({"destination": "/b", "type": "bind", "source": "/h"}), MountKind::Bind, "bind", "/h"),
    ] {
        let found = plan(mount.clone()).unwrap();
        assert_eq!(
            (found.kind.clone(), found.fstype(), found.source.as_path()),
            (kind, fstype, Path::new(source)),
            "{mount}"
        );
    }
}

#[test]
fn destinations_are_absolute_clean_and_below_the_root() {
    for (given, expected) in [
        ("/a/b", "/a/b"),
        ("a", "/a"),
        ("/a/./b//../c/", "/a/c"),
        ("../../etc", "/etc"),
        ("/b/rootfs/data", "/data"),
    ] {
        assert_eq!(destination(Path::new(given), Path::new("/b/rootfs")), Path::new(expected), "{given}");
    }
}

#[test]
fn what_is_refused() {
    let map = json!([{"containerID": 0, "hostID": 1, "size": 2}]);
    for (mount, expected) in [
        (json!({"destination": "/", "type": "tmpfs"}), "mounts[3]: mountpoint is on the top of rootfs"),
        (
            json!({"destination": "/a", "source": "/h", "options": ["bind", "mode=1"]}),
            "mounts[3]: bind mounts cannot have any filesystem-specific options applied",
        ),
        (json!({"destination": "/a", "options": ["bind"]}), "mounts[3]: bind mount without a source"),
        (json!({"destination": "/a\u{0}b", "type": "tmpfs"}), "mounts[3]: mount field contains null byte"),
        (
            json!({"destination": "/a", "type": "tmpfs", "uidMappings": map, "gidMappings": map}),
            "mounts[3]: id-mapped mounts are only supported for bind-mounts",
        ),
        (
            json!({"destination": "/a", "source": "/h", "options": ["bind", "idmap"]}),
            "mounts[3]: id-mapped mounts must have both uid and gid mappings specified",
        ),
    ] {
        assert_eq!(plan(mount.clone()).unwrap_err(), [expected], "{mount}");
    }
}

#[test]
fn id_mappings_come_from_the_mount_or_the_container() {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 5}]);
    let range = IdRange { container: 0, host: 1000, size: 5 };
    let found = plan(
        json!({"destination": "/a", "source": "/h", "options": ["bind"], "uidMappings": map, "gidMappings": map}),
    );
    let source = IdMapSource::Mappings(vec![range], vec![range]);
    assert_eq!(found.unwrap().idmap, Some(IdMap { recursive: false, source }));

    let facts = HostFacts::example();
    let source = IdMapSource::Namespace("/run/ns".into());
    let context = Context {
        bundle: Path::new("/b"),
        root: Path::new("/r"),
        facts: &facts,
        container_idmap: Some(source.clone()),
    };
    let found =
        plan_in(json!({"destination": "/a", "source": "/h", "options": ["rbind", "ridmap"]}), &context);
    assert_eq!(found.unwrap().idmap, Some(IdMap { recursive: true, source }));
}

#[test]
fn proc_takes_procfs_only_and_a_few_files() {
    for (path, rule) in [
        ("/proc", ProcRule::OnlyProcfs),
        ("/proc/sys", ProcRule::Refused),
        ("/proc/self/attr", ProcRule::Refused),
        ("/proc/cpuinfo", ProcRule::Allowed),
        ("/proc/sys/kernel/ns_last_pid", ProcRule::Allowed),
        ("/procfs", ProcRule::Allowed),
        ("/sys", ProcRule::Allowed),
    ] {
        assert_eq!(proc_rule(Path::new(path)), rule, "{path}");
    }
}

proptest::proptest! {
    /// A destination is absolute, has no `..` left and is not cleaned twice to something else.
    #[test]
    fn clean_paths_stay_clean(path in "[a./ ]{0,20}") {
        let once = clean(Path::new(&path));
        proptest::prop_assert!(once.is_absolute());
        proptest::prop_assert!(once.components().all(|c| !matches!(c, Component::ParentDir | Component::CurDir)));
        proptest::prop_assert_eq!(&clean(&once), &once);
    }
}
