//! Each fault point of create, start, exec and delete failed once and killed once.
//!
//! The points are read from the runtime's source, so that a new one is tested the day it is written. Afterwards:
//! `delete --force` succeeds, nothing is left, and the same bundle runs under the same id.

use std::collections::BTreeSet;
use std::path::Path;

use coracle_integration::{Container, Outcome, Runtime, require_root};

/// The names in `point("…")` and `fault("…")` below `runtime/src`.
fn points() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src"), &mut found);
    found
}

fn collect(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).expect("sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("fault.rs") {
            let text = std::fs::read_to_string(&path).expect("source");
            for call in ["point(", "fault("] {
                let calls = text.split(call).skip(1);
                let names = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
                found.extend(names.filter(|name| name.contains('.')).map(str::to_owned));
            }
        }
    }
}

/// The verb a point belongs to is its first word; what is below init's steps happens in create.
fn verb(point: &str) -> &str {
    match point.split('.').next().unwrap_or_default() {
        verb @ ("start" | "exec" | "delete") => verb,
        _ => "create",
    }
}

fn call_with_fault(container: &Container, args: &[&str], fault: &str) -> Outcome {
    let mut command = container.command(args);
    command.env("CORACLE_FAULT", fault);
    container.call_command(command)
}

/// Meets one fault; a complaint or None. None also where the point is not on the way of the plain bundle.
fn meet(point: &str, action: &str) -> Option<String> {
    let runtime = Runtime::subject();
    let container = Container::edited(&runtime, |bundle| {
        bundle.args(&["/bin/sleep", "600"]);
    });
    let fault = format!("{point}={action}");
    let bundle = container.bundle.path.to_string_lossy().into_owned();
    let create = ["create", "--bundle", &bundle, &container.id];
    let outcome = match verb(point) {
        "create" => {
            let created = call_with_fault(&container, &create, &fault);
            // The last points are behind the gate.
            if created.success() {
                container.start();
            }
            created
        }
        "start" => {
            container.create(&[]).expect_success();
            call_with_fault(&container, &["start", &container.id], &fault)
        }
        "exec" => {
            container.run_with(&["--detach"]).expect_success();
            call_with_fault(&container, &["exec", &container.id, "/bin/true"], &fault)
        }
        _ => {
            container.run_with(&["--detach"]).expect_success();
            call_with_fault(&container, &["delete", "--force", &container.id], &fault)
        }
    };
    let complaint = judge(&container, &outcome, &fault).err();
    container.delete_by_force();
    complaint
}

fn judge(container: &Container, outcome: &Outcome, fault: &str) -> Result<(), String> {
    if outcome.timed_out {
        return Err(format!("{fault}: the command hangs"));
    }
    if verb(fault) == "exec" && container.status() != "running" {
        return Err(format!("{fault}: the container did not outlive a failed exec"));
    }
    if outcome.success() {
        println!("{fault}: not on the way of a plain bundle, or tolerated");
    }
    let deleted = container.delete_by_force();
    if !deleted.success() {
        return Err(format!("{fault}: delete --force: {}", deleted.stderr.trim()));
    }
    let mut left = BTreeSet::new();
    let clean = coracle_integration::wait::until(std::time::Duration::from_secs(5), || {
        left = container.leaks();
        left.is_empty()
    });
    if !clean {
        return Err(format!("{fault}: left behind {left:?}"));
    }
    let again = container.run_with(&["--detach"]);
    if !again.success() {
        return Err(format!("{fault}: the retry failed: {}", again.stderr.trim()));
    }
    Ok(())
}

fn all(action: &str) {
    let complaints: Vec<String> = points().iter().filter_map(|point| meet(point, action)).collect();
    assert!(
        complaints.is_empty(),
        "{} of {} points:\n{}",
        complaints.len(),
        points().len(),
        complaints.join("\n")
    );
}

#[test]
fn every_point_failed_once() {
    require_root!();
    all("fail");
}

#[test]
fn every_point_killed_once() {
    require_root!();
    all("kill");
}

#[test]
fn there_are_points_to_fail() {
    if Runtime::subject().is_coracle() {
        let verbs: BTreeSet<String> = points().iter().map(|point| verb(point).to_owned()).collect();
        assert_eq!(
            verbs.into_iter().collect::<Vec<_>>(),
            ["create", "delete", "exec", "start"],
            "{:?}",
            points()
        );
    }
}
