//! What the caller's process hands on must not reach the container: signals, descriptors, priorities, masks.
//!
//! Each test calls the runtime with an unusual attribute and asks inside. Where runc lets an attribute through, callers
//! may rely on it: then the expectation is runc's answer, not a constant.

use std::process::Command;

use coracle_integration::{Container, Outcome, Runtime, inside, require_program, require_root};

/// Runs the inside view through `wrapper`, a command line that execs its arguments with an attribute changed.
fn view_through(runtime: &Runtime, wrapper: &[&str], script: &str) -> String {
    let container = Container::edited(runtime, |bundle| {
        bundle.script(script);
    });
    let outcome = through(&container, wrapper);
    let text = outcome.expect_success();
    let view = inside::normalise(&text, &container.id, &container.directory().to_string_lossy());
    container.finish();
    view
}

fn through(container: &Container, wrapper: &[&str]) -> Outcome {
    let bundle = container.bundle.path.to_string_lossy().into_owned();
    let inner = container.command(&["run", "--bundle", &bundle, &container.id]);
    let mut command: Command = coracle_integration::runtime::quiet(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(container.directory());
    command.env("CORACLE_TEST_ID", &container.id);
    container.call_command(command)
}

#[track_caller]
fn same_as_oracle(wrapper: &[&str], script: &str) {
    let (oracle, subject) = (Runtime::oracle(), Runtime::subject());
    let expected = view_through(&oracle, wrapper, script);
    let found = view_through(&subject, wrapper, script);
    let differences = inside::differences([&subject.name, &oracle.name], [&found, &expected]);
    assert!(differences.is_empty(), "through {wrapper:?}:\n{}", differences.join("\n"));
}

#[test]
fn ignored_and_blocked_signals() {
    require_root!();
    same_as_oracle(
        &["sh", "-c", "trap '' USR1 PIPE; exec \"$@\"", "sh"],
        "echo '== status'; grep ^Sig /proc/self/status",
    );
}

#[test]
fn umask_of_the_caller() {
    require_root!();
    same_as_oracle(&["sh", "-c", "umask 0; exec \"$@\"", "sh"], "umask; ls -l /dev | cut -c1-10");
    same_as_oracle(
        &["sh", "-c", "umask 077; exec \"$@\"", "sh"],
        "umask; ls -ld / /dev /dev/shm /dev/null | cut -c1-10",
    );
}

#[test]
fn nice_of_the_caller() {
    require_root!();
    same_as_oracle(&["nice", "-n", "7"], "echo '== stat'; cat /proc/$$/stat");
}

#[test]
fn affinity_of_the_caller() {
    require_root!();
    require_program!("taskset");
    // runc 1.1 lets it through; since 1.4 a container has the CPUs of its group.
    let allowed = "grep Cpus_allowed: /proc/self/status";
    let free = view_through(&Runtime::subject(), &["env"], allowed);
    assert_eq!(view_through(&Runtime::subject(), &["taskset", "1"], allowed), free);
}

#[test]
fn limits_of_the_caller() {
    require_root!();
    same_as_oracle(
        &["sh", "-c", "ulimit -S -c 0; ulimit -S -n 512; ulimit -S -s 4096; exec \"$@\"", "sh"],
        "cat /proc/self/limits",
    );
}

#[test]
fn oom_score_of_the_caller() {
    require_root!();
    same_as_oracle(
        &["sh", "-c", "echo 77 > /proc/$$/oom_score_adj; exec \"$@\"", "sh"],
        "cat /proc/self/oom_score_adj",
    );
}

#[test]
fn environment_of_the_caller_stays_outside() {
    require_root!();
    let view =
        view_through(&Runtime::subject(), &["env", "SECRET_OF_THE_CALLER=1"], "env; cat /proc/1/environ");
    assert!(!view.contains("SECRET_OF_THE_CALLER"), "{view}");
}

#[test]
fn descriptors_of_the_caller_stay_outside() {
    require_root!();
    let open = ["bash", "-c", "exec 7</etc 9</etc/passwd; exec \"$@\"", "sh"];
    let view = view_through(&Runtime::subject(), &open, "ls /proc/$$/fd; true");
    let numbers: Vec<&str> = view.split_whitespace().collect();
    assert_eq!(numbers, ["0", "1", "2"], "descriptors leaked");
}

#[test]
fn descriptors_asked_for_are_kept() {
    require_root!();
    let container = Container::edited(&Runtime::subject(), |bundle| {
        bundle.script("ls /proc/$$/fd; cat <&3; cat <&4");
    });
    let bundle = container.bundle.path.to_string_lossy().into_owned();
    let inner = container.command(&["run", "--preserve-fds", "2", "--bundle", &bundle, &container.id]);
    let mut command = coracle_integration::runtime::quiet("bash");
    command.args(["-c", "exec 3<<<three 4<<<four 5</etc; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(container.directory());
    let text = container.call_command(command).expect_success();
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "three", "four"]);
    container.finish();
}

#[test]
fn descriptors_of_exec_stay_outside() {
    require_root!();
    let container = Container::sleeping(&Runtime::subject(), |_| {});
    let inner = container.command(&["exec", &container.id, "/bin/sh", "-c", "ls /proc/$$/fd; true"]);
    let mut command = coracle_integration::runtime::quiet("bash");
    command.args(["-c", "exec 7</etc 9</etc/passwd; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(container.directory());
    let text = container.call_command(command).expect_success();
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    container.finish();
}
