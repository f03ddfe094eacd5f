//! Control groups as callers meet them: groups that are in use, kills for lack of memory.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use coracle_integration::{Container, Runtime, leaks, privilege, require_root};
use serde_json::{Value, json};

/// A process of the test in the group of a container that is still to be made.
struct Foreign {
    process: Child,
    group: PathBuf,
}

impl Foreign {
    /// In the first hierarchy where a group can take a process (an empty cpuset can't).
    fn settle(id: &str) -> Self {
        let mut process = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep");
        for hierarchy in leaks::hierarchies() {
            let group = hierarchy.join(leaks::group_of(id));
            if std::fs::create_dir_all(&group).is_err() {
                continue;
            }
            if std::fs::write(group.join("cgroup.procs"), process.id().to_string()).is_ok() {
                return Self { process, group };
            }
            let _ = std::fs::remove_dir(&group);
        }
        process.kill().and_then(|()| process.wait()).expect("end sleep");
        panic!("no hierarchy takes a process");
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir(&self.group);
    }
}

#[test]
fn a_group_in_use_is_refused_and_its_process_lives() {
    require_root!();
    let runtime = Runtime::subject();
    if !runtime.is_coracle() {
        let reason = "runc 1.1 runs a container in such a group";
        privilege::record_skip(&privilege::test_name(), reason);
        return;
    }
    let container = Container::new(&runtime);
    let mut foreign = Foreign::settle(&container.id);
    let outcome = container.run().expect_failure();
    assert!(outcome.stderr.contains("cgroup is not empty: 1 process"), "{}", outcome.stderr);
    container.delete_by_force();
    assert!(foreign.is_alive(), "a process that is not the container's was killed");
    drop(foreign);
    container.finish();
}

#[test]
fn a_kill_for_lack_of_memory_is_an_event() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        // Again and again: the watcher may register later than the first kill.
        bundle
            .script("while :; do sh -c 'a=x; while :; do a=$a$a; done'; done")
            .set("/linux/resources/memory", json!({"limit": 20 << 20}));
    });
    container.create(&[]).expect_success();
    container.start().expect_success();
    let mut events = container.command(&["events", "--interval", "60s", &container.id]);
    let mut watcher = events.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("events");
    let mut lines = BufReader::new(watcher.stdout.take().expect("stdout")).lines();
    let first = lines.next().map(|line| line.expect("line"));
    container.kill("KILL").expect_success();
    container.await_status("stopped");
    // What is still in the pipe must not hold the watcher up.
    lines.by_ref().for_each(drop);
    assert!(watcher.wait().expect("watcher").success());
    let event: Value = serde_json::from_str(&first.expect("an event")).expect("JSON");
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("oom"), Some(container.id.as_str())));
    container.delete().expect_success();
    container.finish();
}
