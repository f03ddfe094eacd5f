//! `cargo xtask test`: every test program of the workspace, one after the other, counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::build::{self, TestProgram};
use crate::guest_suite;
use crate::libtest::{self, Report};
use crate::process;
use crate::skips::{self, Skip};

/// No test program may take longer; the whole suite has an hour on two cores.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// What came of one test program.
pub struct Outcome {
    pub name: String,
    pub report: Report,
    pub skips: Vec<Skip>,
    /// What went wrong with the program itself, beside its tests.
    pub fault: Option<String>,
    pub output: String,
    pub took: Duration,
}

/// What may skip and what is known to fail.
struct Lists {
    skips: Vec<String>,
    known_failures: Vec<String>,
}

pub struct Directories {
    pub target: PathBuf,
    pub logs: PathBuf,
}

/// Builds, runs, prints the failures and the counts; an error unless all passed and every skip is allowed.
pub fn run(root: &Path, filters: &[String]) -> Result<(), String> {
    process::become_subreaper()?;
    let lists = Lists {
        skips: skips::allowed(&root.join("tests/skips.txt"))?,
        known_failures: skips::allowed(&root.join("tests/known-failures.txt"))?,
    };
    let started = Instant::now();
    let programs = build::all_targets(root)?;
    println!("built {} test programs in {:.0} s", programs.len(), started.elapsed().as_secs_f64());
    let target = build::target_dir(root)?;
    let logs = target.join("test-logs");
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let directories = Directories { target, logs };

    let mut results = Vec::new();
    for program in programs.iter().filter(|program| selected(program, filters)) {
        let mut result = run_one(program, &directories, &[], &[])?;
        forgive(&mut result, &lists.known_failures);
        print_line(&result);
        results.push(result);
    }
    remove_cgroup_parent();
    for mut result in guest_suite::run(root, &programs, filters, &directories) {
        forgive(&mut result, &lists.known_failures);
        print_line(&result);
        results.push(result);
    }
    conclude(&results, &lists)
}

/// Removes the control group that test containers lived below; no test can, because others may still use it.
fn remove_cgroup_parent() {
    for mount in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        if let (true, Some(root)) = (mount.contains(" - cgroup"), mount.split(' ').nth(4)) {
            remove_groups(&Path::new(root).join("coracle-test"));
        }
    }
}

/// Removes empty groups from the leaves up; what is in use stays.
fn remove_groups(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

fn selected(program: &TestProgram, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| program.name.contains(filter.as_str()))
}

/// Runs one program, or the named tests of it.
pub fn run_one(
    program: &TestProgram,
    directories: &Directories,
    tests: &[String],
    variables: &[(String, String)],
) -> Result<Outcome, String> {
    let started = Instant::now();
    let stem = program.name.replace('/', "-");
    let log = directories.logs.join(format!("{stem}.log"));
    let skip_file = directories.logs.join(format!("{stem}.skips"));
    std::fs::write(&skip_file, "").map_err(|error| format!("{}: {error}", skip_file.display()))?;

    let mut command = Command::new(&program.executable);
    command
        .current_dir(&program.directory)
        .env("CARGO_MANIFEST_DIR", &program.directory)
        .env("CORACLE_SKIPS", &skip_file)
        .env("CORACLE_BIN_DIR", directories.target.join("debug"))
        .env("RUST_BACKTRACE", "0")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .args(tests);
    let ended = process::run(&mut command, &log, DEADLINE)?;

    let bytes = std::fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let output = String::from_utf8_lossy(&bytes).into_owned();
    let mut report = libtest::parse(&output);
    let mut skipped = skips::recorded(&std::fs::read_to_string(&skip_file).unwrap_or_default());
    // The harness counts a test that returned early as passed.
    report.passed = report.passed.saturating_sub(skipped.len());
    skipped.extend(report.ignored.iter().map(|test| Skip { test: test.clone(), reason: IGNORED.to_owned() }));
    let mut fault = None;
    if ended.timed_out || !report.complete || (!ended.success() && report.failed == 0) {
        fault = Some(ended.describe());
        report.failed += 1;
    }
    for (pid, command) in &ended.left {
        println!("warning: {} left process {pid} behind: {command}", program.name);
    }
    Ok(Outcome { name: program.name.clone(), report, skips: skipped, fault, output, took: started.elapsed() })
}

/// The reason of a test marked `#[ignore]`: the mark stands in the source, beside its reason.
const IGNORED: &str = "ignored";

/// The reason under which a known failure is counted.
const KNOWN: &str = "fails, see tests/known-failures.txt";

/// Counts failures that are known as skipped.
fn forgive(result: &mut Outcome, known: &[String]) {
    let failed = std::mem::take(&mut result.report.failed_names);
    for test in failed.into_iter().filter(|test| skips::is_allowed(known, test)) {
        result.report.failed = result.report.failed.saturating_sub(1);
        result.skips.push(Skip { test, reason: KNOWN.to_owned() });
    }
}

fn print_line(result: &Outcome) {
    let counts = (result.report.passed, result.report.failed, result.skips.len());
    if counts == (0, 0, 0) {
        return;
    }
    let (passed, failed, skipped) = counts;
    let seconds = result.took.as_secs_f64();
    println!(
        "{:<40} {passed:>4} passed {failed:>3} failed {skipped:>3} skipped {seconds:>7.1} s",
        result.name
    );
}

/// Prints what failed, what was skipped, and as the last line the counts.
fn conclude(results: &[Outcome], lists: &Lists) -> Result<(), String> {
    for result in results.iter().filter(|result| result.report.failed > 0) {
        println!("\n==== {} ====", result.name);
        if let Some(fault) = &result.fault {
            println!("the test program {fault}");
        }
        println!("{}", libtest::failures(&result.output).trim());
    }
    let mut unexpected = 0;
    println!();
    for skip in results.iter().flat_map(|result| &result.skips) {
        let allowed =
            skip.reason == KNOWN || skip.reason == IGNORED || skips::is_allowed(&lists.skips, &skip.test);
        let verdict = if allowed { "skipped" } else { "SKIPPED, NOT ALLOWED" };
        unexpected += usize::from(verdict != "skipped");
        println!("{verdict}: {} ({})", skip.test, skip.reason);
    }
    let total = |count: fn(&Outcome) -> usize| results.iter().map(count).sum::<usize>();
    let passed = total(|result| result.report.passed);
    let failed = total(|result| result.report.failed) + unexpected;
    let skipped = total(|result| result.skips.len()) - unexpected;
    if unexpected > 0 {
        println!("{unexpected} skips that tests/skips.txt does not list count as failed");
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 { Err(format!("{failed} tests failed")) } else { Ok(()) }
}
