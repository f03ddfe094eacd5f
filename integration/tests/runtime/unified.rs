//! cgroup v2 alone: what was asked for is what the kernel says, with both drivers, and stays so when systemd reloads.

use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_integration::{Container, Runtime, leaks, privilege, require_root, runtime, wait};
use serde_json::json;

/// Returns from the test, recorded, unless control groups are version 2.
macro_rules! require_unified {
    () => {
        require_root!();
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            privilege::record_skip(&privilege::test_name(), "control groups are version 1 here");
            return;
        }
    };
}

macro_rules! require_systemd {
    () => {
        require_unified!();
        if !leaks::under_systemd() {
            privilege::record_skip(&privilege::test_name(), "systemd is not the driver");
            return;
        }
    };
}

fn group(container: &Container) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(leaks::group_of(&container.id))
}

#[track_caller]
fn assert_files(container: &Container, expected: &[(&str, &str)]) {
    for (file, value) in expected {
        let path = group(container).join(file);
        let found = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(found.trim(), *value, "{file}");
    }
}

fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().expect("systemctl");
    assert!(output.status.success(), "systemctl {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

const ASKED: &[(&str, &str)] = &[
    ("memory.max", "67108864"),
    ("memory.low", "33554432"),
    ("memory.high", "50331648"),
    ("cpu.weight", "59"),
    ("cpu.max", "12345 50000"),
    ("pids.max", "77"),
];

fn limited() -> Container {
    Container::sleeping(&Runtime::subject(), |bundle| {
        bundle
            .set("/linux/resources/memory", json!({"limit": 64 << 20, "reservation": 32 << 20}))
            .set("/linux/resources/cpu", json!({"shares": 512, "quota": 12345, "period": 50000}))
            .set("/linux/resources/pids", json!({"limit": 77}))
            .set("/linux/resources/unified", json!({"memory.high": (48 << 20).to_string()}));
    })
}

#[test]
fn limits_are_what_was_asked() {
    require_unified!();
    let container = limited();
    assert_files(&container, ASKED);
    container.finish();
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    require_unified!();
    let container = limited();
    container.call(&["update", "--memory", "96m", "--pids-limit", "55", &container.id]).expect_success();
    assert_files(
        &container,
        &[
            ("memory.max", "100663296"),
            ("pids.max", "55"),
            ("memory.low", "33554432"),
            // systemd writes the quota again, in whole per cents.
            ("cpu.max", if leaks::under_systemd() { "12500 50000" } else { "12345 50000" }),
        ],
    );
    container.finish();
}

#[test]
fn exec_follows_init_where_the_root_of_the_group_takes_no_process() {
    require_unified!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.push("/linux/namespaces", json!({"type": "cgroup"}));
        let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
        let cgroup = mounts.iter_mut().find(|m| m["type"] == "cgroup").expect("cgroup mount");
        cgroup["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
        bundle.script(
            "cd /sys/fs/cgroup && mkdir sub && echo $$ > sub/cgroup.procs && \
             echo +pids > cgroup.subtree_control && exec sleep 600",
        );
    });
    container.run_with(&["--detach"]).expect_success();
    let file = group(&container).join("cgroup.subtree_control");
    let enabled =
        wait::until(wait::PATIENCE, || std::fs::read_to_string(&file).is_ok_and(|t| t.contains("pids")));
    assert!(enabled, "the container did not enable a controller");
    let own = container.exec(&[], &["cat", "/proc/self/cgroup"]).expect_success();
    assert!(own.trim().ends_with("/sub"), "{own}");
    container.finish();
}

#[test]
fn systemd_reloads_and_limits_stay() {
    require_systemd!();
    let container = limited();
    container.call(&["update", "--memory", "96m", &container.id]).expect_success();
    systemctl(&["daemon-reload"]);
    // Quotas are whole per cents for systemd; all else is exact.
    assert_files(
        &container,
        &[("memory.max", "100663296"), ("memory.high", "50331648"), ("cpu.weight", "59"), ("pids.max", "77")],
    );
    let script = "echo x > /dev/null && echo fine; mknod /tmp/k c 1 2 2>/dev/null; cat /proc/self/cgroup";
    let outcome = container.exec(&[], &["sh", "-c", script]).expect_success();
    assert!(outcome.starts_with("fine"), "{outcome}");
    container.finish();
}

#[test]
fn systemd_knows_the_scope_as_it_was_asked_for() {
    require_systemd!();
    let container = Container::sleeping(&Runtime::subject(), |bundle| {
        bundle
            .set("/annotations", json!({"org.systemd.property.TimeoutStopUSec": "uint64 7000000"}))
            .set("/linux/resources/memory", json!({"limit": 64 << 20}));
    });
    let unit = format!("it-{}.scope", container.id);
    let show = |property: &str| systemctl(&["show", &unit, "--value", "-p", property]);
    for (property, value) in [
        ("Slice", "coracle-test.slice"),
        ("Delegate", "yes"),
        ("DevicePolicy", "strict"),
        ("MemoryMax", "67108864"),
        ("TimeoutStopUSec", "7s"),
    ] {
        assert_eq!(show(property), value, "{property}");
    }
    container.finish();
    assert_eq!(systemctl(&["list-units", "--all", "--no-legend", &unit]), "");
}

#[test]
fn systemd_of_a_user_makes_scopes_without_root() {
    require_systemd!();
    let id = "1000";
    let linger = Command::new("loginctl").args(["enable-linger", "guest"]).status().expect("loginctl");
    assert!(linger.success());
    let bus = Path::new("/run/user").join(id).join("bus");
    assert!(wait::until(wait::PATIENCE, || bus.exists()), "no bus of the user");
    let container = Container::edited(&Runtime::subject(), |bundle| {
        let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
        for options in mounts.iter_mut().filter_map(|mount| mount["options"].as_array_mut()) {
            options.retain(|option| !option.as_str().is_some_and(|text| text.starts_with("gid=")));
        }
        bundle
            .push("/linux/namespaces", json!({"type": "user"}))
            .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}]))
            .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}]))
            .set("/linux/cgroupsPath", json!("user.slice:it:mine"))
            .set("/linux/resources/pids", json!({"limit": 77}))
            .script("cat /proc/self/cgroup");
    });
    let chown = Command::new("chown").args(["-R", "1000:1000"]).arg(container.directory()).status();
    assert!(chown.expect("chown").success());
    let mut command = runtime::quiet("setpriv");
    command.args(["--reuid", id, "--regid", id, "--clear-groups", "env"]);
    command.arg(format!("XDG_RUNTIME_DIR=/run/user/{id}")).arg(&container.runtime.program);
    command.arg("--systemd-cgroup").arg("--root").arg(container.directory().join("own"));
    command.arg("run").arg("--bundle").arg(&container.bundle.path).arg(&container.id);
    let outcome = container.call_command(command).expect_success();
    let own = "/user.slice/user-1000.slice/user@1000.service/user.slice/it-mine.scope";
    assert!(outcome.contains(own), "{outcome}");
    assert!(!Path::new("/sys/fs/cgroup").join(&own[1..]).exists(), "the scope is still there");
}
