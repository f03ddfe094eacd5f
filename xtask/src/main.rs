//! The project's own commands: `cargo xtask test | guest | lint | bench | quickstart | packages`.
//!
//! Kept small and free of the product's crates, so that it builds on a machine that has nothing but Rust: it is what
//! installs the rest (`packages`), builds the workspace once (`build`), and runs every test program (`suite`).

mod build;
mod guest;
mod guest_suite;
mod libtest;
mod packages;
mod process;
mod quickstart;
mod skips;
mod suite;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask <command>

  test [FILTER…]   install what is missing, build everything, run every test; FILTER selects test programs by name
  guest [--backend uml|qemu] [--env NAME=VALUE] -- COMMAND…
                   COMMAND as root in a Debian machine with systemd and cgroup v2, in this directory
  lint             formatting and clippy, warnings denied
  bench            the runtime against runc and crun and against the bare floor; writes docs/performance.md
  bench cri [ROUNDS [PODS]]
                   coracled against containerd with runc and crun; writes the section on pods of that page
  quickstart [--check]
                   build, install what is missing, run the pods of the Kubernetes tutorial until Ctrl-C; --check: once
  packages         install the Debian packages that the tests use
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = args.split_first().map_or(("help", &args[..]), |(verb, rest)| (verb.as_str(), rest));
    let root = workspace_root();
    let outcome = match verb {
        "test" => packages::install(packages::FOR_TESTS)
            .and_then(|()| packages::install(packages::FOR_GUEST))
            .and_then(|()| suite::run(&root, rest)),
        "guest" => match packages::install(packages::FOR_GUEST).and_then(|()| guest::run(&root, rest)) {
            Ok(status) => return status,
            Err(message) => Err(message),
        },
        // The guest's side of `guest`: the machine executes a copy of this program.
        "guest-agent" => {
            coracle_guest::agent::main(Path::new(rest.first().map_or("", String::as_str)));
            Ok(())
        }
        // The test programs of a plan, in the guest.
        "guest-suite" => guest_suite::serve(Path::new(rest.first().map_or("", String::as_str))),
        "lint" => packages::install(packages::FOR_TESTS).and_then(|()| lint(&root)),
        "bench" => packages::install(packages::FOR_TESTS).and_then(|()| bench(&root, rest)),
        "quickstart" => {
            packages::install(packages::FOR_QUICKSTART).and_then(|()| quickstart::run(&root, rest))
        }
        "packages" => packages::install(packages::FOR_TESTS),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(format!("unknown command {other}\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The directory of the workspace's manifest, independent of where the command is called.
fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cargo that runs us, so that a toolchain override stays in force.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

fn succeed(command: &mut Command, what: &str) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{what}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what}: {status}")) }
}

fn lint(root: &Path) -> Result<(), String> {
    succeed(cargo(root).args(["fmt", "--all", "--check"]), "cargo fmt --check")?;
    let mut clippy = cargo(root);
    clippy
        .args(["clippy", "--workspace", "--all-targets"])
        .args(build::FEATURES)
        .args(["--", "-D", "warnings"]);
    succeed(&mut clippy, "cargo clippy")
}

fn bench(root: &Path, arguments: &[String]) -> Result<(), String> {
    let (program, rest) = match arguments.split_first() {
        Some((first, rest)) if first == "cri" => ("coracle-bench-cri", rest),
        _ => ("coracle-bench", arguments),
    };
    let products = ["-p", "coracle-runtime", "-p", "coracle-monitor", "-p", "coracle-cri", "--bins"];
    succeed(cargo(root).args(["build", "--release"]).args(products), "cargo build --release")?;
    succeed(
        cargo(root).args(["build", "--release", "-p", "coracle-bench", "--bins"]),
        "cargo build --release",
    )?;
    let release = build::target_dir(root)?.join("release");
    // crun refuses version 1 with controllers on a cgroup2 mount beside it: that mount is hidden from all candidates.
    let view = "umount /sys/fs/cgroup/unified 2>/dev/null; ip link set lo up; exec \"$0\" \"$@\"";
    let command = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--net", "sh", "-c", view]);
        command
            .arg(release.join(program))
            .current_dir(root)
            .env("CORACLE", release.join("coracle"))
            .env("CORACLED", release.join("coracled"))
            .args(rest);
        command
    };
    succeed(&mut command(), program)?;
    if program != "coracle-bench" {
        return Ok(());
    }
    // State is on a tmpfs wherever /run is one.
    let chapter = "The same on tmpfs";
    succeed(command().env("TMPDIR", "/dev/shm").env("CORACLE_BENCH_CHAPTER", chapter), program)
}
