//! What callers are used to from runc and what its own suite looks for, each in a test of ours.

use std::time::Duration;

use coracle_integration::{Container, Runtime, leaks, require_root, wait};
use serde_json::{Value, json};

fn first_hierarchy_of(container: &Container, file: &str) -> std::path::PathBuf {
    let group = leaks::group_of(&container.id);
    let found =
        leaks::hierarchies().into_iter().map(|root| root.join(&group).join(file)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("no hierarchy has {file}"))
}

#[test]
fn statistics_have_every_field() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    let text = container.call(&["events", "--stats", &container.id]).expect_success();
    let event: Value = serde_json::from_str(&text).expect("one line of JSON");
    for field in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt"] {
        assert!(event["data"][field].is_object(), "{field} is missing: {event}");
    }
    assert!(event["data"]["pids"]["current"].as_u64() >= Some(1), "{event}");
    container.finish();
}

#[test]
fn a_limit_of_no_processes_means_one() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |bundle| {
        bundle.set("/linux/resources/pids", json!({"limit": 0}));
    });
    let limit = std::fs::read_to_string(first_hierarchy_of(&container, "pids.max")).expect("pids.max");
    assert_eq!(limit.trim(), "1");
    container.finish();
}

#[test]
fn exec_enters_sub_groups_only() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    for (group, text) in
        [("..", "bad sub cgroup path"), ("nonesuch", "no such file"), ("what:/", "unknown controller what")]
    {
        let outcome = container.exec(&["--cgroup", group], &["/bin/true"]).expect_failure();
        assert!(outcome.stderr.contains(text), "{group}: {}", outcome.stderr);
    }
    container.exec(&["--cgroup", "/"], &["/bin/true"]).expect_success();
    container.finish();
}

#[test]
fn a_frozen_group_is_refused() {
    require_root!();
    let container = Container::new(&Runtime::subject());
    let group = leaks::group_of(&container.id);
    let frozen = leaks::hierarchies().into_iter().find_map(|root| {
        let path = root.join(&group);
        std::fs::create_dir_all(&path).ok()?;
        let done = ["freezer.state", "cgroup.freeze"]
            .iter()
            .zip(["FROZEN", "1"])
            .any(|(file, value)| path.join(file).exists() && std::fs::write(path.join(file), value).is_ok());
        if done {
            return Some(path);
        }
        std::fs::remove_dir(&path).ok()?;
        None
    });
    let frozen = frozen.expect("a hierarchy that freezes");
    let outcome = container.run().expect_failure();
    assert!(outcome.stderr.contains("unexpectedly frozen"), "{}", outcome.stderr);
    std::fs::remove_dir(&frozen).expect("nobody is in the group");
    container.delete_by_force();
    container.finish();
}

#[test]
fn a_created_container_ends_when_asked_to() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.args(&["/bin/sleep", "600"]);
    });
    container.create(&[]).expect_success();
    let pid = container.init_pid();
    // It waits at its gate when it sleeps there; until then the signal could be too early.
    let signalled = wait::until(wait::PATIENCE, || {
        container.kill("TERM");
        !leaks::is_alive(pid) || container.status() == "stopped"
    });
    assert!(signalled, "SIGTERM did not end a created container");
    container.delete().expect_success();
    container.finish();
}

#[test]
fn kill_reaches_those_who_outlived_init_in_a_shared_pid_namespace() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |bundle| {
        bundle.without_namespace("pid");
    });
    let init = container.init_pid();
    container.exec(&["--detach"], &["/bin/sleep", "600"]).expect_success();
    let init = rustix_pid(init);
    rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("kill init");
    container.await_status("stopped");
    let procs = first_hierarchy_of(&container, "cgroup.procs");
    let count = || std::fs::read_to_string(&procs).map_or(0, |text| text.lines().count());
    assert_eq!(count(), 1, "the other process is gone before it was killed");
    container.kill("KILL").expect_success();
    assert!(wait::until(Duration::from_secs(10), || count() == 0), "a process outlived kill");
    container.finish();
}

fn rustix_pid(pid: i32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid).expect("a pid")
}

#[test]
fn hooks_find_themselves_where_runc_puts_them() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle
            .args(&["/bin/cat", "/made-by-hook"])
            .set("/root/readonly", json!(false))
            .push("/process/env", json!("OF_THE_PROGRAM=two"))
            .set(
                "/hooks/createContainer",
                json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo here > ./made-by-hook"]}]),
            )
            .set(
                "/hooks/startContainer",
                json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo $OF_THE_PROGRAM >> /made-by-hook"]}]),
            );
    });
    assert_eq!(container.run().expect_success(), "here\ntwo\n");
    container.finish();
}

#[test]
fn an_empty_home_is_none() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script("echo $HOME").push("/process/env", json!("HOME="));
    });
    assert_eq!(container.run().expect_success(), "/root\n");
    container.finish();
}

#[test]
fn output_of_a_terminal_keeps_its_newlines() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script("echo one; echo two").set("/process/terminal", json!(true));
    });
    assert_eq!(container.run().expect_success(), "one\ntwo\n");
    container.finish();
}

#[test]
fn a_root_that_was_named_must_be_there_to_be_listed() {
    require_root!();
    let container = Container::new(&Runtime::subject());
    let outcome = container.call(&["list"]).expect_failure();
    assert!(outcome.stderr.contains("no such file or directory"), "{}", outcome.stderr);
    container.finish();
}

#[test]
fn an_ambient_capability_that_cannot_be_is_told() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.args(&["/bin/true"]).set("/process/capabilities/ambient", json!(["CAP_KILL"]));
    });
    let outcome = container.run();
    assert!(outcome.success(), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("can't raise ambient capability CAP_KILL"), "{}", outcome.stderr);
    container.finish();
}
