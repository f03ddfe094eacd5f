//! A container's life: which verb is legal in which state, what callers read at each, and that nothing is left.

use std::time::Duration;

use coracle_integration::{Container, Runtime, leaks, require_root, wait};
use serde_json::{Value, json};

#[test]
fn created_running_stopped_gone() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.args(&["/bin/sleep", "600"]);
    });
    container.create(&[]).expect_success();
    assert_eq!(container.status(), "created");
    let pid = container.init_pid();
    assert!(leaks::is_alive(pid));
    container.start().expect_success();
    assert_eq!((container.status(), container.init_pid()), ("running".to_owned(), pid));
    container.kill("KILL").expect_success();
    container.await_status("stopped");
    container.delete().expect_success();
    container.call(&["state", &container.id]).expect_failure();
    container.finish();
}

#[test]
fn the_program_waits_for_start() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script("echo ran > /ran; exec sleep 600").set("/root/readonly", json!(false));
    });
    container.create(&[]).expect_success();
    let ran = container.bundle.rootfs().join("ran");
    // Nothing may be there however long one looks: the process is blocked, which its state tells.
    let blocked = wait::until(Duration::from_secs(5), || sleeps(container.init_pid()));
    assert!(blocked && !ran.exists(), "the program ran before start");
    container.start().expect_success();
    assert!(wait::until(wait::PATIENCE, || ran.exists()), "the program did not run after start");
    container.finish();
}

fn sleeps(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

#[test]
fn a_second_start_fails() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    let outcome = container.start().expect_failure();
    assert!(!outcome.stderr.is_empty());
    assert_eq!(container.status(), "running");
    container.finish();
}

#[test]
fn an_id_in_use_is_refused_and_unharmed() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    let outcome = container.create(&[]).expect_failure();
    assert!(outcome.stderr.contains("exists") || outcome.stderr.contains("in use"), "{}", outcome.stderr);
    assert_eq!(container.status(), "running");
    container.finish();
}

#[test]
fn a_running_container_is_deleted_only_by_force() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    container.delete().expect_failure();
    assert_eq!(container.status(), "running");
    container.delete_by_force().expect_success();
    container.assert_no_leaks();
    container.finish();
}

#[test]
fn deleting_what_is_not_there() {
    require_root!();
    let container = Container::new(&Runtime::subject());
    container.delete().expect_failure();
    container.delete_by_force().expect_success();
    container.finish();
}

#[test]
fn a_created_container_is_deleted_by_force() {
    require_root!();
    let container = Container::new(&Runtime::subject());
    container.create(&[]).expect_success();
    container.delete_by_force().expect_success();
    container.assert_no_leaks();
    container.finish();
}

#[test]
fn ids_that_could_be_paths_are_refused() {
    require_root!();
    let container = Container::new(&Runtime::subject());
    let bundle = container.bundle.path.to_string_lossy().into_owned();
    for id in ["../up", "a/b", "..", "with space", ""] {
        container.call(&["create", "--bundle", &bundle, id]).expect_failure();
    }
    container.finish();
}

#[test]
fn the_pid_file_names_the_init() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.args(&["/bin/sleep", "600"]);
    });
    let file = container.directory().join("pid");
    container.create(&["--pid-file", &file.to_string_lossy()]).expect_success();
    let written = std::fs::read_to_string(&file).expect("pid file");
    assert_eq!(written, container.init_pid().to_string());
    container.finish();
}

#[test]
fn list_and_ps_show_it() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    let pid = container.init_pid();
    assert_eq!(container.call(&["list", "--quiet"]).expect_success().trim(), container.id);
    let table = container.call(&["list"]).expect_success();
    let row = table.lines().nth(1).unwrap_or_default();
    for word in [container.id.as_str(), &pid.to_string(), "running", "root"] {
        assert!(row.contains(word), "{word} is not in {table}");
    }
    let list: Value =
        serde_json::from_str(&container.call(&["list", "--format", "json"]).expect_success()).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["pid"]), (&json!(container.id), &json!(pid)));
    let processes: Value =
        serde_json::from_str(&container.call(&["ps", "--format", "json", &container.id]).expect_success())
            .unwrap();
    assert_eq!(processes, json!([pid]));
    assert!(container.call(&["ps", &container.id]).expect_success().contains("sleep 600"));
    container.finish();
}

#[test]
fn signals_by_name_and_number() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle
            .script("trap 'echo usr1 >> /got' USR1; trap 'echo hup >> /got' HUP; echo ready > /got; while :; do sleep 0.1; done")
            .set("/root/readonly", json!(false));
    });
    container.run_with(&["--detach"]).expect_success();
    let got = || std::fs::read_to_string(container.bundle.rootfs().join("got")).unwrap_or_default();
    assert!(wait::until(wait::PATIENCE, || got().contains("ready")));
    for (signal, word) in [("USR1", "usr1"), ("1", "hup")] {
        container.kill(signal).expect_success();
        assert!(wait::until(wait::PATIENCE, || got().contains(word)), "{signal} did not arrive: {}", got());
    }
    container.kill("NOSUCH").expect_failure();
    container.finish();
}

#[test]
fn killing_a_stopped_container_fails() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    container.kill("KILL").expect_success();
    container.await_status("stopped");
    container.kill("KILL").expect_failure();
    container.start().expect_failure();
    container.exec(&[], &["/bin/true"]).expect_failure();
    container.delete().expect_success();
    container.finish();
}

#[test]
fn the_whole_container_ends_with_its_init() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script("sleep 600 & sleep 601 & echo started; exit 0");
    });
    assert_eq!(container.run().expect_success(), "started\n");
    container.finish();
}

#[test]
fn without_a_pid_namespace_delete_ends_all_processes() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script("sleep 600 & sleep 601 & wait").without_namespace("pid");
    });
    container.run_with(&["--detach"]).expect_success();
    assert!(wait::until(wait::PATIENCE, || leaks::processes(&container.id).len() >= 3));
    container.delete_by_force().expect_success();
    container.assert_no_leaks();
    container.finish();
}

#[test]
fn exec_detached_with_pid_file() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    let file = container.directory().join("exec-pid");
    container
        .exec(&["--detach", "--pid-file", &file.to_string_lossy()], &["/bin/sleep", "601"])
        .expect_success();
    let pid: i32 = std::fs::read_to_string(&file).expect("pid file").parse().expect("a number");
    assert!(leaks::is_alive(pid));
    let processes: Value =
        serde_json::from_str(&container.call(&["ps", "--format", "json", &container.id]).expect_success())
            .unwrap();
    assert!(
        processes.as_array().is_some_and(|pids| pids.contains(&json!(pid))),
        "{pid} is not in {processes}"
    );
    container.finish();
}

#[test]
fn exec_takes_a_process_file() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    let mut process = container.bundle.config["process"].clone();
    process["args"] = json!(["/bin/sh", "-c", "echo from-file; id -u; pwd"]);
    process["user"] = json!({"uid": 1000, "gid": 1000});
    process["cwd"] = json!("/tmp");
    let file = container.directory().join("process.json");
    std::fs::write(&file, process.to_string()).expect("process file");
    let outcome = container.call(&["exec", "--process", &file.to_string_lossy(), &container.id]);
    assert_eq!(outcome.expect_success(), "from-file\n1000\n/tmp\n");
    container.finish();
}

#[test]
fn many_at_once() {
    require_root!();
    let runtime = Runtime::subject();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|number| {
                let runtime = &runtime;
                scope.spawn(move || {
                    let container = Container::edited(runtime, |bundle| {
                        bundle.script(&format!("echo {number}"));
                    });
                    let outcome = container.run();
                    container.finish();
                    outcome
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("worker")).collect()
    });
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.expect_success(), format!("{number}\n"));
    }
}

#[test]
fn errors_go_to_the_log_as_json() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.args(&["/no/such"]);
    });
    let log = container.directory().join("log.json");
    let bundle = container.bundle.path.to_string_lossy().into_owned();
    let log_path = log.to_string_lossy().into_owned();
    let args = ["--log", &log_path, "--log-format", "json", "run", "--bundle", &bundle, &container.id];
    container.call(&args).expect_failure();
    let text = std::fs::read_to_string(&log).expect("log");
    let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("a line of JSON");
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().is_some_and(|message| message.contains("/no/such")), "{text}");
    assert!(last["time"].is_string());
    container.finish();
}

#[test]
fn standard_input_reaches_the_program() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script("cat; echo end");
    });
    let input = container.directory().join("input");
    std::fs::write(&input, "given\n").expect("input");
    let bundle = container.bundle.path.to_string_lossy().into_owned();
    let mut command = container.command(&["run", "--bundle", &bundle, &container.id]);
    command.stdin(std::fs::File::open(&input).expect("input"));
    assert_eq!(container.call_command(command).expect_success(), "given\nend\n");
    container.finish();
}

#[test]
fn run_may_keep_the_container() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script("exit 5");
    });
    assert_eq!(container.run_with(&["--keep"]).code, Some(5));
    assert_eq!(container.status(), "stopped");
    container.delete().expect_success();
    container.finish();
}

#[test]
fn a_damaged_record_is_named_and_does_not_hide_the_others() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    let other = container.state_root().join("damaged");
    std::fs::create_dir(&other).expect("directory");
    std::fs::write(other.join("state.json"), "{ torn").expect("record");
    let outcome = container.call(&["list", "--quiet"]);
    assert!(outcome.stdout.contains(&container.id), "{outcome:#?}");
    container.call(&["state", "damaged"]).expect_failure();
    std::fs::remove_dir_all(&other).expect("directory");
    container.finish();
}
