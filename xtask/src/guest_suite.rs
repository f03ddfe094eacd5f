//! The suites that also run in the guest: on cgroup v2 with the cgroup file system as driver, and with systemd.
//!
//! The host writes a plan, boots one machine for each environment, all at once, and reads the results. The machine runs
//! this program again (`xtask guest-suite PLAN`), which runs the test programs as the host does and writes what came of
//! them beside the plan. Where there is no machine (no packages, no root), that is one skip per environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_guest::Backend;
use serde_json::{Value, json};

use crate::build::TestProgram;
use crate::libtest::Report;
use crate::skips::Skip;
use crate::suite::{Directories, Outcome, run_one};
use crate::{guest, process};

/// The machine and its build; the suites take a third of it.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Which programs run in a machine, and how.
pub struct Environment {
    /// The first part of its programs' names.
    pub name: &'static str,
    /// `package/target`, and the tests of it (all if none is named).
    programs: &'static [(&'static str, &'static [&'static str])],
    variables: &'static [(&'static str, &'static str)],
}

const ENVIRONMENTS: &[Environment] = &[
    Environment {
        name: "guest-cgroupfs",
        programs: &[
            ("integration/runtime", &[]),
            // The compiler of seccomp profiles needs no kernel of its own: its oracles are built with a C compiler, on the host.
            ("runtime/coracle_runtime", &["--skip", "seccomp::oracle"]),
        ],
        variables: &[("CORACLE_TEST_CGROUP", "cgroupfs")],
    },
    Environment {
        name: "guest-systemd",
        programs: &[("integration/runtime", &[])],
        variables: &[("CORACLE_TEST_CGROUP", "systemd")],
    },
];

/// Runs what the filters leave of each environment; nothing if they name none of it.
pub fn run(
    root: &Path,
    programs: &[TestProgram],
    filters: &[String],
    directories: &Directories,
) -> Vec<Outcome> {
    let mut plans = Vec::new();
    for environment in ENVIRONMENTS {
        let chosen: Vec<(&TestProgram, &[&str])> = chosen(environment, programs, filters);
        if !chosen.is_empty() {
            plans.push((environment.name, plan(environment, &chosen, directories)));
        }
    }
    std::thread::scope(|scope| {
        let machines: Vec<_> = plans
            .iter()
            .map(|(name, plan)| (*name, scope.spawn(move || one_machine(root, name, plan.as_ref()))))
            .collect();
        let ended = machines.into_iter().map(|(name, machine)| {
            machine.join().unwrap_or_else(|_| vec![no_machine(name, "the thread panicked")])
        });
        ended.flatten().collect()
    })
}

fn chosen<'a>(
    environment: &Environment,
    programs: &'a [TestProgram],
    filters: &[String],
) -> Vec<(&'a TestProgram, &'static [&'static str])> {
    let found = environment.programs.iter().filter_map(|(name, tests)| {
        let full = format!("{}/{name}", environment.name);
        let wanted = filters.is_empty() || filters.iter().any(|filter| full.contains(filter.as_str()));
        let program = programs.iter().find(|program| program.name == *name).filter(|_| wanted)?;
        Some((program, *tests))
    });
    found.collect()
}

/// Writes the plan; its path.
fn plan(
    environment: &Environment,
    chosen: &[(&TestProgram, &[&str])],
    directories: &Directories,
) -> Result<PathBuf, String> {
    let logs = directories.logs.join(environment.name);
    let programs: Vec<Value> = chosen
        .iter()
        .map(|(program, tests)| {
            json!({
                "name": format!("{}/{}", environment.name, program.name),
                "executable": program.executable,
                "directory": program.directory,
                "tests": tests,
            })
        })
        .collect();
    let variables: Vec<Value> =
        environment.variables.iter().map(|(name, value)| json!([name, value])).collect();
    let plan =
        json!({"target": directories.target, "logs": logs, "programs": programs, "variables": variables});
    let failed = |error| format!("{}: {error}", logs.display());
    std::fs::create_dir_all(&logs).map_err(failed)?;
    let _ = std::fs::remove_file(logs.join("results.json"));
    let path = logs.join("plan.json");
    std::fs::write(&path, plan.to_string()).map_err(failed)?;
    Ok(path)
}

/// Boots a machine for one plan; a machine that does not come up is a skip, one that loses its results is a failure.
fn one_machine(root: &Path, name: &str, plan: Result<&PathBuf, &String>) -> Vec<Outcome> {
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return vec![no_machine(name, error)],
    };
    let agent = Path::new(coracle_guest::control::IN_GUEST).join(coracle_guest::control::AGENT);
    let command = vec![agent.into(), "guest-suite".into(), plan.into()];
    match guest::boot(root, Backend::Uml, command, Vec::new(), DEADLINE) {
        Ok(_) => read_results(name, &plan.with_file_name("results.json")),
        Err(error) => vec![no_machine(name, &error)],
    }
}

/// In the guest: runs the plan and writes the results.
pub fn serve(plan: &Path) -> Result<(), String> {
    process::become_subreaper()?;
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", plan.display());
    let text = std::fs::read_to_string(plan).map_err(|error| failed(&error))?;
    let plan_value: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    let path = |value: &Value| PathBuf::from(value.as_str().unwrap_or_default());
    let directories = Directories { target: path(&plan_value["target"]), logs: path(&plan_value["logs"]) };
    // A disk as machines have it: no tmpfs with nodev and nosuid.
    let mut variables = vec![("TMPDIR".to_owned(), "/var/tmp".to_owned())];
    variables.extend(
        plan_value["variables"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()))),
    );
    let mut results = Vec::new();
    for program in plan_value["programs"].as_array().into_iter().flatten() {
        let test = TestProgram {
            name: program["name"].as_str().unwrap_or_default().to_owned(),
            executable: path(&program["executable"]),
            directory: path(&program["directory"]),
        };
        let tests = program["tests"].as_array().into_iter().flatten();
        let tests: Vec<String> = tests.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        results.push(render(&run_one(&test, &directories, &tests, &variables)?));
    }
    std::fs::write(plan.with_file_name("results.json"), Value::from(results).to_string())
        .map_err(|error| failed(&error))
}

fn render(outcome: &Outcome) -> Value {
    let skips: Vec<Value> = outcome.skips.iter().map(|skip| json!([skip.test, skip.reason])).collect();
    json!({
        "name": outcome.name,
        "passed": outcome.report.passed,
        "failed": outcome.report.failed,
        "failed_names": outcome.report.failed_names,
        "skips": skips,
        "fault": outcome.fault,
        "output": outcome.output,
        "seconds": outcome.took.as_secs_f64(),
    })
}

fn read_results(name: &str, path: &Path) -> Vec<Outcome> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let Ok(Value::Array(results)) = serde_json::from_str(&text) else {
        let mut lost = no_machine(name, "the machine ended without results");
        lost.skips.clear();
        lost.report.failed = 1;
        lost.fault = Some("ended without results".to_owned());
        return vec![lost];
    };
    results.iter().map(|result| parse(name, result)).collect()
}

/// Names of tests carry the environment, so that a skip is allowed here and nowhere else.
fn parse(environment: &str, result: &Value) -> Outcome {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |key: &str| result[key].as_array().cloned().unwrap_or_default();
    let number = |key: &str| usize::try_from(result[key].as_u64().unwrap_or(0)).unwrap_or(0);
    let named = |value: &Value| format!("{environment}::{}", text(value));
    Outcome {
        name: text(&result["name"]),
        report: Report {
            passed: number("passed"),
            failed: number("failed"),
            failed_names: list("failed_names").iter().map(named).collect(),
            complete: true,
            ..Report::default()
        },
        skips: list("skips")
            .iter()
            .map(|skip| Skip { test: named(&skip[0]), reason: text(&skip[1]) })
            .collect(),
        fault: result["fault"].as_str().map(str::to_owned),
        output: text(&result["output"]),
        took: Duration::from_secs_f64(result["seconds"].as_f64().unwrap_or(0.0)),
    }
}

fn no_machine(name: &str, reason: &str) -> Outcome {
    let reason = reason.lines().next().unwrap_or_default().to_owned();
    Outcome {
        name: format!("{name}/machine"),
        report: Report::default(),
        skips: vec![Skip { test: format!("{name}::machine"), reason }],
        fault: None,
        output: String::new(),
        took: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_survive_the_way() {
        let outcome = Outcome {
            name: "e/p/t".to_owned(),
            report: Report {
                passed: 3,
                failed: 1,
                failed_names: vec!["a::b".to_owned()],
                ..Report::default()
            },
            skips: vec![Skip { test: "c".to_owned(), reason: "why".to_owned() }],
            fault: Some("killed".to_owned()),
            output: "text".to_owned(),
            took: Duration::from_secs(2),
        };
        let back = parse("e", &render(&outcome));
        assert_eq!((back.report.passed, back.report.failed), (3, 1));
        assert_eq!(back.report.failed_names, ["e::a::b"]);
        assert_eq!((back.skips[0].test.as_str(), back.fault.as_deref()), ("e::c", Some("killed")));
    }
}
