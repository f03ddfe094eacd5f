//! The CRI request tables of `oci`.

use std::collections::HashMap;

use k8s_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, Mount, NamespaceMode, NamespaceOption,
    PodSandboxConfig, SecurityProfile, SupplementalGroupsPolicy,
};
use serde_json::{Value, json};

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/:/bin/false\n";
const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:200:web,other\n";

fn spec_of(config: &ContainerConfig, change: impl FnOnce(&mut Sandbox)) -> Result<Value, Invalid> {
    let mut sandbox = Sandbox {
        id: "5".repeat(64),
        netns: Some("/run/netns/coracle-x".into()),
        ipcns: Some("/proc/7/ns/ipc".into()),
        utsns: Some("/proc/7/ns/uts".into()),
        cgroups_path: "/kubepods/pod1/c1".into(),
        ..Sandbox::default()
    };
    change(&mut sandbox);
    let image = Image {
        env: vec!["PATH=/usr/bin".into(), "LANG=C".into()],
        entrypoint: vec!["/entry".into()],
        cmd: vec!["serve".into()],
        ..Image::default()
    };
    let pod = PodSandboxConfig { hostname: "pod-1".into(), ..PodSandboxConfig::default() };
    let request = Request {
        id: "c1",
        pod: &pod,
        config,
        sandbox: &sandbox,
        image: &image,
        user: &User::default(),
        rootfs: "rootfs",
        volumes: &[],
        host_devices: &[("/dev/fuse".into(), 'c', 10, 229)],
        localhost_seccomp: None,
        cgroup2: true,
        held_capabilities: &[],
        oom_score_floor: None,
    };
    container_spec(&request).map(|s| serde_json::to_value(s).expect("a spec is JSON"))
}

fn config(security: LinuxContainerSecurityContext) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        linux: Some(LinuxContainerConfig { resources: None, security_context: Some(security) }),
        ..ContainerConfig::default()
    }
}

fn pid_mode(mode: NamespaceMode) -> LinuxContainerSecurityContext {
    LinuxContainerSecurityContext {
        namespace_options: Some(NamespaceOption { pid: mode as i32, ..NamespaceOption::default() }),
        ..LinuxContainerSecurityContext::default()
    }
}

fn namespaces(spec: &Value) -> Vec<(String, Option<String>)> {
    let list = spec["linux"]["namespaces"].as_array().expect("namespaces");
    list.iter()
        .map(|n| (n["type"].as_str().unwrap_or("").to_owned(), n["path"].as_str().map(str::to_owned)))
        .collect()
}

#[test]
fn command_and_args_follow_kubernetes_table() {
    let table: &[(&[&str], &[&str], &[&str])] = &[
        (&[], &[], &["/entry", "serve"]),
        (&["/bin/a"], &[], &["/bin/a"]),
        (&[], &["b"], &["/entry", "b"]),
        (&["/bin/a"], &["b"], &["/bin/a", "b"]),
    ];
    for (command, args, expected) in table {
        let mut c = config(pid_mode(NamespaceMode::Container));
        c.command = command.iter().map(ToString::to_string).collect();
        c.args = args.iter().map(ToString::to_string).collect();
        let spec = spec_of(&c, |_| ()).expect("valid");
        assert_eq!(spec["process"]["args"], json!(expected), "{command:?} {args:?}");
    }
}

#[test]
fn the_request_replaces_the_images_environment_by_name() {
    let mut c = config(pid_mode(NamespaceMode::Container));
    c.envs = vec![
        KeyValue { key: "LANG".into(), value: "de".into() },
        KeyValue { key: "A".into(), value: "x=y".into() },
    ];
    let spec = spec_of(&c, |_| ()).expect("valid");
    assert_eq!(spec["process"]["env"], json!(["PATH=/usr/bin", "HOSTNAME=pod-1", "LANG=de", "A=x=y"]));
}

#[test]
fn namespaces_join_the_pods() {
    let spec = spec_of(&config(pid_mode(NamespaceMode::Container)), |_| ()).expect("valid");
    let path = |p: &str| Some(p.to_owned());
    let expected = vec![
        ("mount".to_owned(), None),
        ("network".to_owned(), path("/run/netns/coracle-x")),
        ("ipc".to_owned(), path("/proc/7/ns/ipc")),
        ("uts".to_owned(), path("/proc/7/ns/uts")),
        ("pid".to_owned(), None),
        ("cgroup".to_owned(), None),
    ];
    assert_eq!(namespaces(&spec), expected);
}

#[test]
fn a_shared_pid_namespace_must_be_there() {
    let c = config(pid_mode(NamespaceMode::Pod));
    assert!(matches!(spec_of(&c, |_| ()), Err(Invalid::Field { .. })));
    let spec = spec_of(&c, |s| s.pidns = Some("/proc/9/ns/pid".into())).expect("valid");
    assert!(namespaces(&spec).contains(&("pid".into(), Some("/proc/9/ns/pid".into()))));
}

#[test]
fn capabilities_are_added_and_dropped() {
    let set = |add: &[&str], drop: &[&str], privileged| {
        let security = LinuxContainerSecurityContext {
            privileged,
            capabilities: Some(Capability {
                add_capabilities: add.iter().map(ToString::to_string).collect(),
                drop_capabilities: drop.iter().map(ToString::to_string).collect(),
                add_ambient_capabilities: vec![],
            }),
            ..LinuxContainerSecurityContext::default()
        };
        let sets = capabilities(&security, &[]);
        let bounding = sets["bounding"].as_array().expect("array").clone();
        bounding.into_iter().map(|v| v.as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(set(&[], &[], false), DEFAULT_CAPABILITIES);
    assert_eq!(set(&["net_admin"], &["ALL"], false), ["CAP_NET_ADMIN"]);
    assert_eq!(set(&["ALL"], &["CAP_SYS_ADMIN"], false).len(), 40);
    assert!(!set(&["ALL"], &["CAP_SYS_ADMIN"], false).contains(&"CAP_SYS_ADMIN".to_owned()));
    assert_eq!(set(&[], &[], true).len(), 41);
}

#[test]
fn ambient_capabilities_reach_every_set() {
    let security = LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_ambient_capabilities: vec!["NET_ADMIN".into()],
            ..Capability::default()
        }),
        ..LinuxContainerSecurityContext::default()
    };
    let sets = capabilities(&security, &[]);
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        assert!(sets[set].as_array().expect("array").contains(&json!("CAP_NET_ADMIN")), "{set}");
    }
}

#[test]
fn users_are_found_or_refused() {
    let files = Passwd { passwd: PASSWD, group: GROUP };
    let by_image = |user: &str| resolve_user(&LinuxContainerSecurityContext::default(), user, files);
    let user = |uid, gid, groups: &[u32]| User { uid, gid, additional_gids: groups.to_vec() };
    assert_eq!(by_image(""), Ok(user(0, 0, &[0])));
    assert_eq!(by_image("web"), Ok(user(101, 102, &[102, 200])));
    assert_eq!(by_image("101"), Ok(user(101, 102, &[102, 200])));
    assert_eq!(by_image("web:logs"), Ok(user(101, 200, &[200])));
    assert_eq!(by_image("7777"), Ok(user(7777, 0, &[0])));
    assert!(matches!(by_image("nobody"), Err(Invalid::NoUser { .. })));
    assert!(matches!(by_image("web:nogroup"), Err(Invalid::NoUser { .. })));
    assert!(matches!(by_image("4294967296"), Err(Invalid::Field { .. })), "never wraps to root");
}

#[test]
fn strict_groups_ignore_the_image() {
    let security = LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 101 }),
        run_as_group: Some(Int64Value { value: 5 }),
        supplemental_groups: vec![9],
        supplemental_groups_policy: SupplementalGroupsPolicy::Strict as i32,
        ..LinuxContainerSecurityContext::default()
    };
    let user = resolve_user(&security, "", Passwd { passwd: PASSWD, group: GROUP });
    assert_eq!(user, Ok(User { uid: 101, gid: 5, additional_gids: vec![5, 9] }));
}

#[test]
fn volumes_are_ordered_and_replace_the_pods_files() {
    let mut c = config(pid_mode(NamespaceMode::Container));
    let mount = |to: &str| Mount { container_path: to.into(), host_path: "/h".into(), ..Mount::default() };
    c.mounts = vec![mount("/data/deep"), mount("/data"), mount("/etc/hosts")];
    let spec = spec_of(&c, |s| s.files.hosts = Some("/run/hosts".into())).expect("valid");
    let list: Vec<_> = spec["mounts"].as_array().expect("mounts").iter().skip(6).cloned().collect();
    let to: Vec<_> = list.iter().map(|m| m["destination"].as_str().unwrap_or("")).collect();
    assert_eq!(to, ["/data", "/data/deep", "/etc/hosts"]);
    assert!(list.iter().all(|m| m["source"] == "/h"));
}

#[test]
fn bad_mounts_and_devices_are_named() {
    let mut c = config(pid_mode(NamespaceMode::Container));
    c.mounts = vec![Mount { container_path: "data".into(), host_path: "/h".into(), ..Mount::default() }];
    assert!(spec_of(&c, |_| ()).expect_err("relative").to_string().contains("\"data\""));
    c.mounts.clear();
    c.devices = vec![k8s_cri::v1::Device { host_path: "/dev/none".into(), ..Default::default() }];
    assert!(spec_of(&c, |_| ()).expect_err("no device").to_string().contains("/dev/none"));
    c.devices[0].host_path = "/dev/fuse".into();
    let spec = spec_of(&c, |_| ()).expect("valid");
    assert_eq!(spec["linux"]["devices"][0]["minor"], json!(229));
}

#[test]
fn limits_leave_unset_values_out() {
    let asked = LinuxContainerResources {
        cpu_shares: 512,
        memory_limit_in_bytes: 1 << 20,
        unified: HashMap::from([("memory.high".into(), "5".into())]),
        ..LinuxContainerResources::default()
    };
    let expected =
        json!({"cpu": {"shares": 512}, "memory": {"limit": 1 << 20}, "unified": {"memory.high": "5"}});
    assert_eq!(resources::limits(&asked), Ok(expected));
    let escape = LinuxContainerResources {
        unified: HashMap::from([("../cgroup.procs".into(), "1".into())]),
        ..LinuxContainerResources::default()
    };
    assert!(resources::limits(&escape).is_err());
}

#[test]
fn runtime_default_seccomp_follows_the_capabilities() {
    let profile = |add: &[&str]| {
        let mut security = pid_mode(NamespaceMode::Container);
        security.seccomp = Some(SecurityProfile::default());
        security.capabilities = Some(Capability {
            add_capabilities: add.iter().map(ToString::to_string).collect(),
            ..Capability::default()
        });
        let spec = spec_of(&config(security), |_| ()).expect("valid");
        spec["linux"]["seccomp"].clone()
    };
    let allowed = |profile: &Value, call: &str| {
        let rules = profile["syscalls"].as_array().expect("rules");
        rules.iter().any(|r| {
            r["args"].is_null()
                && r["action"] == "SCMP_ACT_ALLOW"
                && r["names"].as_array().expect("names").contains(&json!(call))
        })
    };
    let plain = profile(&[]);
    assert_eq!(plain["defaultAction"], "SCMP_ACT_ERRNO");
    for (call, expected) in [
        ("read", true),
        ("chroot", true),
        ("mount", false),
        ("clone", false),
        ("keyctl", false),
        ("io_uring_setup", false),
    ] {
        assert_eq!(allowed(&plain, call), expected, "{call}");
    }
    let admin = profile(&["SYS_ADMIN"]);
    for (call, expected) in [("mount", true), ("clone3", true), ("keyctl", false), ("reboot", false)] {
        assert_eq!(allowed(&admin, call), expected, "{call}");
    }
}
