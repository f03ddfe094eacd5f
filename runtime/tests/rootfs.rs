//! The root filesystem's executor on a real kernel, without the rest of the runtime.
//!
//! Each case makes a bundle, re-executes this program inside new namespaces by util-linux's `unshare`, walks the plan
//! there and reports what a process in the container sees. Needs root (or a user namespace) and is skipped without.

#![allow(clippy::unwrap_used)]

use coracle_runtime::init::rootfs;
use coracle_runtime::plan::{HostFacts, plan_rootfs};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A bundle with a small rootfs and a config.json from these parts.
struct Bundle {
    dir: tempfile::TempDir,
}

impl Bundle {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(dir.path().join("rootfs").join(directory)).unwrap();
        }
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Walks the plan for `config` inside `unshare <namespaces>`; the output is the report of [`inside`].
    fn run(&self, config: serde_json::Value, namespaces: &[&str]) -> Output {
        let mut config = config;
        config["ociVersion"] = "1.2.0".into();
        if config.get("root").is_none() {
            config["root"] = serde_json::json!({"path": "rootfs"});
        }
        std::fs::write(self.dir.path().join("config.json"), config.to_string()).unwrap();
        Command::new("timeout")
            .args(["60", "unshare", "--mount", "--propagation", "unchanged", "--fork"])
            .args(namespaces)
            .arg("--")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "inside", "--ignored", "--nocapture", "--test-threads=1"])
            .env("CORACLE_TEST_BUNDLE", self.dir.path())
            .output()
            .unwrap()
    }
}

/// The child's side; prints `STAT path …` lines for what tests look at, and the mount table.
#[test]
#[ignore = "runs only inside the namespaces that the other tests make"]
fn inside() {
    let Some(bundle) = std::env::var_os("CORACLE_TEST_BUNDLE").map(PathBuf::from) else { return };
    let config = std::fs::read(bundle.join("config.json")).unwrap();
    let spec: oci_spec::runtime::Spec = serde_json::from_slice(&config).unwrap();
    let raw: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let mut plan = match plan_rootfs(&spec, &bundle, &HostFacts::gather()) {
        Ok(plan) => plan,
        Err(problems) => panic!("{problems:?}"),
    };
    plan.no_pivot = raw["test"]["noPivot"] == true;
    if raw["test"]["unified"] == true {
        plan.cgroup_v1 = None;
        plan.cgroup2_path = Some("/sys/fs/cgroup/unified".into());
    }
    deny(&raw["test"]["deny"], &raw["test"]["errno"]);
    let mut handles = plan.open_sources().unwrap();
    if raw["test"]["detachedRoot"] == true {
        handles.set_root(detached_root());
    }
    let walked = rootfs::prepare(&plan, &mut handles, &mut |_| Ok(None))
        .and_then(|()| rootfs::pivot(&plan, &mut handles))
        .and_then(|()| rootfs::finish(&plan, &mut handles));
    // The harness has written the beginning of a line.
    println!();
    if let Err(error) = walked {
        println!("ERROR {error}");
        return;
    }
    report(raw["test"]["look"].as_array().map_or(&[], Vec::as_slice));
}

/// An empty tmpfs with a `/proc`, as a store would hand in an overlay.
fn detached_root() -> std::os::fd::OwnedFd {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_string(&context, "source", "detached").unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let attributes = MountAttrFlags::empty();
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).unwrap()
}

/// Makes system calls fail as old kernels and nested containers do.
fn deny(names: &serde_json::Value, errno: &serde_json::Value) {
    if names.is_null() {
        return;
    }
    let profile = serde_json::from_value(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "flags": [],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]
    }))
    .unwrap();
    let filter =
        coracle_runtime::seccomp::compile(&profile, &coracle_runtime::seccomp::Host::current()).unwrap();
    filter.load().unwrap();
}

fn report(look: &[serde_json::Value]) {
    use std::os::unix::fs::MetadataExt;
    if let Ok(text) = std::fs::read_to_string("/proc/self/mountinfo") {
        for line in text.lines() {
            let (left, right) = line.split_once(" - ").unwrap();
            let left: Vec<&str> = left.split(' ').collect();
            // Peer groups have numbers that differ from run to run.
            let peers: Vec<&str> = left[6..].iter().map(|p| p.split(':').next().unwrap()).collect();
            println!("MOUNT {} {} {} - {right}", left[4], left[5], peers.join(","));
        }
    }
    for path in look.iter().filter_map(|p| p.as_str()) {
        match std::fs::symlink_metadata(path) {
            Err(error) => println!("LOOK {path} {}", error.raw_os_error().unwrap_or(0)),
            Ok(m) => {
                let text =
                    std::fs::read_link(path).map(|t| format!(" -> {}", t.display())).unwrap_or_default();
                let content = m.is_file().then(|| std::fs::read_to_string(path).ok()).flatten();
                let content = content.map(|t| format!(" {t:?}")).unwrap_or_default();
                println!("LOOK {path} {:o} {}:{} {:x}{text}{content}", m.mode(), m.uid(), m.gid(), m.rdev());
            }
        }
    }
}

fn lines(output: &Output, kind: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let found: Vec<String> =
        text.lines().filter_map(|l| l.strip_prefix(kind)).map(|l| l.trim().to_owned()).collect();
    assert!(!found.is_empty(), "no {kind} in {text}\n{}", String::from_utf8_lossy(&output.stderr));
    found
}

fn error(output: &Output) -> String {
    lines(output, "ERROR ").remove(0)
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        record_skip("needs root");
    }
    root
}

/// Skips are counted: the runner reads them from the file that `CORACLE_SKIPS` names.
fn record_skip(reason: &str) {
    let line = format!("SKIP {}: {reason}\n", std::thread::current().name().unwrap_or("rootfs"));
    eprint!("{line}");
    let Some(path) = std::env::var_os("CORACLE_SKIPS") else { return };
    let file = std::fs::File::options().append(true).create(true).open(path);
    std::io::Write::write_all(&mut file.unwrap(), line.as_bytes()).unwrap();
}

fn namespaces(names: &[&str]) -> serde_json::Value {
    names.iter().map(|n| serde_json::json!({"type": n})).collect::<Vec<_>>().into()
}

fn usual_mounts() -> Vec<serde_json::Value> {
    let m = |dst: &str, typ: &str, options: &[&str]| serde_json::json!({"destination": dst, "type": typ, "source": typ, "options": options});
    vec![
        m("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        m("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        m("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        m("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        m("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        m("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ]
}

#[test]
fn usual_container_gets_mounts_devices_and_restrictions() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new();
    let out = bundle.run(
        serde_json::json!({
            "root": {"path": "rootfs", "readonly": true},
            "mounts": usual_mounts(),
            "linux": {
                "namespaces": namespaces(&["mount", "pid", "ipc"]),
                "maskedPaths": ["/proc/uptime", "/proc/acpi", "/sys/firmware", "/proc/scsi", "/proc/none"],
                "readonlyPaths": ["/proc/sys", "/proc/none"],
                "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 432,
                             "uid": 7, "gid": 8}]
            },
            "test": {"look": ["/dev/null", "/dev/ptmx", "/dev/fd", "/dev/core", "/dev/fuse", "/proc/uptime"]}
        }),
        &["--pid", "--ipc"],
    );
    let mounts = lines(&out, "MOUNT ");
    let find = |path: &str| {
        mounts
            .iter()
            .rev()
            .find(|m| m.starts_with(&format!("{path} ")))
            .unwrap_or_else(|| panic!("{path}: {mounts:#?}"))
    };
    assert!(mounts[0].starts_with("/ ro,"), "{mounts:#?}");
    assert_eq!(find("/proc"), "/proc rw,nosuid,nodev,noexec,relatime  - proc proc rw");
    assert!(find("/dev").starts_with("/dev rw,nosuid  - tmpfs tmpfs rw,size=65536k,mode=755"));
    assert!(
        find("/dev/pts").starts_with(
            "/dev/pts rw,nosuid,noexec,relatime  - devpts devpts rw,gid=5,mode=620,ptmxmode=666"
        )
    );
    assert_eq!(find("/dev/mqueue"), "/dev/mqueue rw,nosuid,nodev,noexec,relatime  - mqueue mqueue rw");
    assert!(find("/sys").starts_with("/sys ro,nosuid,nodev,noexec,relatime  - sysfs sysfs r"));
    assert_eq!(find("/proc/sys"), "/proc/sys ro,nosuid,nodev,noexec,relatime  - proc proc rw");
    assert!(find("/sys/firmware").starts_with("/sys/firmware ro,relatime  - tmpfs tmpfs ro"));
    let look = lines(&out, "LOOK ");
    assert_eq!(look[0], "/dev/null 20666 0:0 103");
    assert!(look[1].ends_with("-> pts/ptmx"));
    assert!(look[2].ends_with("-> /proc/self/fd"));
    assert!(look[4].starts_with("/dev/fuse 20660 7:8 ae5"), "{}", look[4]);
    assert!(look[5].starts_with("/proc/uptime 20666 0:0 103"), "{}", look[5]);
}

#[test]
fn binds_keep_what_they_are_and_make_their_mount_points() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new();
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("file"), "hello").unwrap();
    let bind = |src: &Path, dst: &str, options: &[&str]| serde_json::json!({"destination": dst, "type": "bind", "source": src, "options": options});
    let mut mounts = usual_mounts();
    mounts.push(bind(&host.path().join("file"), "/etc/made/file", &["bind", "ro"]));
    mounts.push(bind(host.path(), "/data", &["rbind", "rro", "rprivate", "nosuid"]));
    mounts.push(
        serde_json::json!({"destination": "/data2", "type": "tmpfs", "source": "x", "options": ["ro"]}),
    );
    mounts.push(bind(host.path(), "/data2/nested", &["rbind", "rshared"]));
    let out = bundle.run(
        serde_json::json!({
            "mounts": mounts,
            "linux": {"namespaces": namespaces(&["mount", "pid", "ipc"])},
            "test": {"look": ["/etc/made/file", "/data/file", "/data2/nested/file"]}
        }),
        &["--pid", "--ipc"],
    );
    let mounts = lines(&out, "MOUNT ");
    let find = |path: &str| mounts.iter().rev().find(|m| m.starts_with(&format!("{path} "))).unwrap();
    assert!(find("/etc/made/file").starts_with("/etc/made/file ro,"), "{mounts:#?}");
    assert!(find("/data").starts_with("/data ro,nosuid"), "{mounts:#?}");
    assert!(find("/data2").starts_with("/data2 ro,relatime  - tmpfs x rw"), "{mounts:#?}");
    assert!(find("/data2/nested").contains("shared"), "{mounts:#?}");
    for line in lines(&out, "LOOK ") {
        assert!(line.ends_with("\"hello\""), "{line}");
    }
    assert!(bundle.root().join("etc/made/file").is_file());
}

#[test]
fn tmpcopyup_copies_owners_modes_links_and_times() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let bundle = Bundle::new();
    let dir = bundle.root().join("var/lib");
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::write(dir.join("sub/a"), "content").unwrap();
    std::fs::set_permissions(dir.join("sub/a"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    chown(dir.join("sub/a"), Some(12), Some(34)).unwrap();
    std::fs::set_permissions(dir.join("sub/a"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    std::fs::hard_link(dir.join("sub/a"), dir.join("b")).unwrap();
    symlink("/etc/shadow", dir.join("l")).unwrap();
    let mut mounts = usual_mounts();
    mounts.push(serde_json::json!({"destination": "/var/lib", "type": "tmpfs", "source": "tmpfs",
                                   "options": ["tmpcopyup", "nosuid"]}));
    let out = bundle.run(
        serde_json::json!({
            "mounts": mounts,
            "linux": {"namespaces": namespaces(&["mount", "pid", "ipc"])},
            "test": {"look": ["/var/lib", "/var/lib/sub/a", "/var/lib/b", "/var/lib/l"]}
        }),
        &["--pid", "--ipc"],
    );
    assert_eq!(
        lines(&out, "LOOK "),
        [
            "/var/lib 40711 0:0 0",
            "/var/lib/sub/a 104750 12:34 0 \"content\"",
            "/var/lib/b 104750 12:34 0 \"content\"",
            "/var/lib/l 120777 0:0 0 -> /etc/shadow",
        ]
    );
}

#[test]
fn hostile_roots_and_destinations_are_refused_or_stay_inside() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::symlink;
    let linux = serde_json::json!({"namespaces": namespaces(&["mount", "pid", "ipc"])});
    let run = |prepare: &dyn Fn(&Path), mounts: Vec<serde_json::Value>| {
        let bundle = Bundle::new();
        prepare(&bundle.root());
        error(&bundle.run(serde_json::json!({"mounts": mounts, "linux": linux}), &["--pid", "--ipc"]))
    };
    let swap = |name: &'static str, target: &'static str| {
        move |root: &Path| {
            std::fs::remove_dir(root.join(name)).unwrap();
            symlink(target, root.join(name)).unwrap();
        }
    };
    let tmpfs = |dst: &str| serde_json::json!({"destination": dst, "type": "tmpfs", "source": "tmpfs"});
    let bind =
        |src: &str, dst: &str| serde_json::json!({"destination": dst, "source": src, "options": ["bind"]});
    for (found, expected) in [
        (run(&swap("proc", "/tmp"), usual_mounts()), "must be mounted on ordinary directory"),
        (run(&swap("sys", "/tmp"), usual_mounts()), "must be mounted on ordinary directory"),
        (run(&swap("dev", "/"), usual_mounts()), "mountpoint is on the top of rootfs"),
        (run(&|_| {}, vec![tmpfs("/proc")]), "not of type proc"),
        (run(&|_| {}, vec![bind("/tmp", "/proc")]), "not of type proc"),
        (run(&swap("tmp", "/proc"), vec![tmpfs("/tmp")]), "not of type proc"),
        (run(&|_| {}, vec![usual_mounts().remove(0), tmpfs("/proc/sys")]), "inside /proc"),
        (run(&|_| {}, vec![bind("/nonexistent/x", "/y")]), "/nonexistent/x: no such file or directory"),
    ] {
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
}

#[test]
fn links_out_of_the_root_make_nothing_outside() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::symlink;
    let bundle = Bundle::new();
    let victim = bundle.dir.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    symlink("../../victim", bundle.root().join("data")).unwrap();
    std::fs::remove_dir(bundle.root().join("dev")).unwrap();
    symlink(&victim, bundle.root().join("dev")).unwrap();
    let out = bundle.run(
        serde_json::json!({
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/data/x", "type": "tmpfs", "source": "tmpfs"}
            ],
            "linux": {"namespaces": namespaces(&["mount", "pid", "ipc"]), "maskedPaths": ["/data"]}
        }),
        &["--pid", "--ipc"],
    );
    lines(&out, "MOUNT ");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
}

#[test]
fn a_false_null_device_is_refused() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::symlink;
    let bundle = Bundle::new();
    symlink("/etc/passwd", bundle.root().join("dev/null")).unwrap();
    std::fs::write(bundle.root().join("etc/passwd"), "").unwrap();
    std::fs::write(bundle.root().join("secret"), "s").unwrap();
    let out = bundle.run(
        serde_json::json!({
            "linux": {"namespaces": namespaces(&["mount"]), "maskedPaths": ["/secret"]}
        }),
        &[],
    );
    assert!(error(&out).contains("container's /dev/null is invalid"));
}

#[test]
fn cgroups_are_mounted_with_and_without_a_namespace() {
    if !is_root() {
        return;
    }
    for (kinds, unshare) in
        [(&["mount", "pid", "cgroup"][..], &["--pid", "--cgroup"][..]), (&["mount", "pid"], &["--pid"])]
    {
        let bundle = Bundle::new();
        let mut mounts = vec![usual_mounts().remove(0), usual_mounts().remove(5)];
        mounts
            .push(serde_json::json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                                       "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}));
        let out = bundle.run(
            serde_json::json!({
                "mounts": mounts,
                "linux": {"namespaces": namespaces(kinds)}, "test": {"look": ["/sys/fs/cgroup/cpu"]}
            }),
            unshare,
        );
        let mounts = lines(&out, "MOUNT ");
        let top = mounts.iter().find(|m| m.starts_with("/sys/fs/cgroup ")).unwrap();
        assert!(top.starts_with("/sys/fs/cgroup rw,nosuid,nodev,noexec,relatime"), "{mounts:#?}");
        if !HostFacts::gather().cgroup_unified {
            let memory = mounts.iter().find(|m| m.starts_with("/sys/fs/cgroup/memory ")).unwrap();
            assert!(memory.contains(" ro,nosuid,nodev,noexec,relatime  - cgroup cgroup"), "{memory}");
        }
    }
}

#[test]
fn idmapped_binds_show_mapped_owners() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new();
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("file"), "x").unwrap();
    std::os::unix::fs::chown(host.path().join("file"), Some(5), Some(6)).unwrap();
    let mapping = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mut mounts = usual_mounts();
    mounts.push(
        serde_json::json!({"destination": "/data", "source": host.path(), "options": ["rbind", "ridmap"],
                                   "uidMappings": mapping, "gidMappings": mapping}),
    );
    // No pid namespace: the user namespace of the mapping is reached through /proc by its process's number.
    let out = bundle.run(
        serde_json::json!({
            "mounts": mounts,
            "linux": {"namespaces": namespaces(&["mount", "ipc"])},
            "test": {"look": ["/data/file"]}
        }),
        &["--ipc"],
    );
    assert_eq!(lines(&out, "LOOK "), ["/data/file 100644 100005:100006 0 \"x\""]);
}

#[test]
fn user_namespace_binds_devices_and_sys() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new();
    std::fs::set_permissions(bundle.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let out = bundle.run(
        serde_json::json!({
            "mounts": usual_mounts().into_iter().map(|mut m| {
                // gid 5 is not mapped.
                if m["type"] == "devpts" { m["options"] = serde_json::json!(["newinstance", "mode=0620"]); }
                m
            }).collect::<Vec<_>>(),
            "linux": {
                "namespaces": namespaces(&["mount", "pid", "ipc", "user"]),
                "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]
            },
            "test": {"look": ["/dev/null", "/sys/kernel"]}
        }),
        &["--pid", "--ipc", "--user", "--map-root-user"],
    );
    let look = lines(&out, "LOOK ");
    assert!(look[0].starts_with("/dev/null 20666"), "{look:?}");
    assert!(look[1].starts_with("/sys/kernel 4"), "{look:?}");
    let mounts = lines(&out, "MOUNT ");
    assert!(mounts.iter().any(|m| m.starts_with("/dev/null ")), "{mounts:#?}");
}

#[test]
fn no_pivot_leaves_no_whole_proc_behind() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new();
    let out = bundle.run(
        serde_json::json!({
            "mounts": usual_mounts(),
            "linux": {"namespaces": namespaces(&["mount", "pid", "ipc"])},
            "test": {"look": ["/dev/null"], "noPivot": true}
        }),
        &["--pid", "--ipc"],
    );
    assert_eq!(lines(&out, "LOOK "), ["/dev/null 20666 0:0 103"]);
}

/// The mount table and some files of a container with one of every kind of mount, while `deny` fails with `errno`.
fn with_denied(deny: &[&str], errno: i32) -> (Vec<String>, Vec<String>) {
    let bundle = Bundle::new();
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(bundle.root().join("var/lib/x")).unwrap();
    std::fs::write(host.path().join("file"), "x").unwrap();
    std::os::unix::fs::symlink("/run/a/b", bundle.root().join("link")).unwrap();
    let bind = |src: PathBuf, dst: &str, options: &[&str]| serde_json::json!({"destination": dst, "source": src, "options": options});
    let mut mounts = usual_mounts();
    mounts.extend([
        serde_json::json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                           "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
        serde_json::json!({"destination": "/var/lib", "type": "tmpfs", "source": "tmpfs",
                           "options": ["tmpcopyup", "ro", "noexec"]}),
        bind(host.path().join("file"), "/link/file", &["bind", "ro", "nosuid", "noatime"]),
        bind(host.path().to_owned(), "/data", &["rbind", "rslave", "rw"]),
        bind(host.path().to_owned(), "/shared", &["bind", "rshared"]),
    ]);
    let out = bundle.run(
        serde_json::json!({
            "root": {"path": "rootfs", "readonly": true},
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces(&["mount", "pid", "ipc", "cgroup"]),
                "maskedPaths": ["/proc/uptime", "/proc/acpi", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/bus"]
            },
            "test": {"look": ["/dev/null", "/link/file", "/var/lib/x", "/proc/uptime"],
                     "deny": if deny.is_empty() { serde_json::Value::Null } else { deny.into() }, "errno": errno}
        }),
        &["--pid", "--ipc", "--cgroup"],
    );
    let hide = |line: String| line.replace(&host.path().display().to_string(), "HOST");
    (lines(&out, "MOUNT ").into_iter().map(hide).collect(), lines(&out, "LOOK "))
}

#[test]
fn missing_system_calls_change_nothing_that_can_be_seen() {
    if !is_root() {
        return;
    }
    let expected = with_denied(&[], 0);
    assert!(
        expected.0.iter().any(|m| m.starts_with("/run/a/b/file ro,nosuid,noatime ")),
        "{:#?}",
        expected.0
    );
    assert!(expected.0.iter().any(|m| m.starts_with("/var/lib ro,noexec,relatime ")), "{:#?}", expected.0);
    let all = ["fsopen", "open_tree", "move_mount", "mount_setattr", "openat2"];
    for errno in [libc_enosys(), 1] {
        for name in all {
            assert_eq!(with_denied(&[name], errno), expected, "{name} {errno}");
        }
        assert_eq!(with_denied(&all, errno), expected, "all {errno}");
    }
}

fn libc_enosys() -> i32 {
    rustix::io::Errno::NOSYS.raw_os_error()
}

#[test]
fn cgroup2_is_mounted_or_bound_where_that_is_not_allowed() {
    if !is_root() {
        return;
    }
    if !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        record_skip("needs a hybrid host, whose cgroup2 is at /sys/fs/cgroup/unified");
        return;
    }
    for (kinds, unshare, expected) in [
        (
            &["mount", "cgroup"][..],
            &["--cgroup"][..],
            "/sys/fs/cgroup ro,nosuid,noexec,relatime  - cgroup2 cgroup",
        ),
        // Without the namespace that the plan believes in, the kernel refuses as it does on older hosts.
        (
            &["mount", "user", "cgroup"],
            &["--user", "--map-root-user"],
            "/sys/fs/cgroup ro,nosuid,noexec,relatime ",
        ),
    ] {
        let bundle = Bundle::new();
        std::fs::set_permissions(bundle.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let proc = serde_json::json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]});
        let cgroup = serde_json::json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                                        "options": ["nosuid", "noexec", "ro"]});
        let out = bundle.run(
            serde_json::json!({
                "mounts": [proc, cgroup],
                "linux": {"namespaces": namespaces(kinds)}, "test": {"unified": true}
            }),
            unshare,
        );
        let mounts = lines(&out, "MOUNT ");
        assert!(mounts.iter().any(|m| m.starts_with(expected)), "{mounts:#?}");
    }
}

#[test]
fn a_detached_mount_becomes_the_root() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new();
    let out = bundle.run(
        serde_json::json!({
            "mounts": usual_mounts(),
            "linux": {"namespaces": namespaces(&["mount", "pid", "ipc"])},
            "test": {"look": ["/dev/null"], "detachedRoot": true}
        }),
        &["--pid", "--ipc"],
    );
    assert_eq!(lines(&out, "MOUNT ")[0], "/ rw,relatime  - tmpfs detached rw");
    assert!(!bundle.root().join("dev/null").exists());
}
