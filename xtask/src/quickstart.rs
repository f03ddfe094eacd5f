//! `cargo xtask quickstart [--check]`: the helloworld of the Kubernetes tutorials on this machine, without Kubernetes.
//!
//! Two replicas of an nginx pod and a pod of two containers that talk over localhost, on a `coracled` of its own:
//!
//! ```text
//! /var/tmp/coracle-quickstart   images, records, logs of the pods and of the daemon, manifests, the registry
//! /run/coracle-qs               sockets of this run
//! coracle-qs0                   bridge; and the nftables table coracle-coracle-qs0
//! ```
//!
//! All of that is removed in the end, also when a step fails or Ctrl-C is pressed. What a run left that was killed is
//! removed by the next one: its daemon finds the pods again.

mod daemon;
mod images;
mod interrupt;
mod pods;
mod web;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::build;
use daemon::Daemon;
use interrupt::Interrupt;
use pods::Deployment;

const DATA: &str = "/var/tmp/coracle-quickstart";
/// Short: the path of a monitor's socket is limited to 108 bytes.
const STATE: &str = "/run/coracle-qs";
const BRIDGE: &str = "coracle-qs0";

/// Everything that a step needs to know.
struct Place {
    programs: PathBuf,
    data: PathBuf,
    state: PathBuf,
}

/// Builds, starts, asks, shows; waits for Ctrl-C unless `check`; removes.
pub fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        other => return Err(format!("quickstart: unknown arguments {other:?}; only --check is known")),
    };
    if !rustix::process::geteuid().is_root() {
        return Err("quickstart: pods with addresses of their own need root".into());
    }
    let build = [
        "build",
        "--release",
        "-p",
        "coracle-runtime",
        "-p",
        "coracle-monitor",
        "-p",
        "coracle-cri",
        "--bins",
    ];
    let built =
        timed("cargo build --release", || crate::succeed(crate::cargo(root).args(build), "cargo build"));
    built?;
    let place =
        Place { programs: build::target_dir(root)?.join("release"), data: DATA.into(), state: STATE.into() };
    print_sizes(&place.programs)?;
    let interrupt = Interrupt::hold()?;
    let _only = place.lock()?;
    let outcome = place.serve(&interrupt, check);
    match outcome {
        Ok(()) => println!("\nEvery request was answered, and everything is removed."),
        Err(_) => println!("\nEverything is removed."),
    }
    outcome
}

impl Place {
    /// One quick start at a time, because names of bridge and directories are fixed.
    fn lock(&self) -> Result<std::fs::File, String> {
        std::fs::create_dir_all(&self.data).map_err(|error| format!("{}: {error}", self.data.display()))?;
        let path = self.data.join("lock");
        let file = std::fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| "another quick start runs".to_owned())?;
        Ok(file)
    }

    /// From the daemon's start to its end.
    fn serve(&self, interrupt: &Interrupt, check: bool) -> Result<(), String> {
        let daemon = timed("start coracled", || Daemon::start(self, interrupt))?;
        let outcome = daemon.remove_pods().and_then(|()| self.show(&daemon, interrupt, check));
        if outcome.is_err() {
            daemon.print_log();
        }
        println!("\n== cleaning up");
        let cleaned = timed("remove pods, daemon, network, files", || daemon.end());
        outcome.and(cleaned)
    }

    fn show(&self, daemon: &Daemon, interrupt: &Interrupt, check: bool) -> Result<(), String> {
        println!("\n== images");
        let images = images::provide(self, daemon, interrupt)?;
        println!("\n== pods");
        let deployment = Deployment::start(self, daemon, &images, interrupt)?;
        println!("\n== requests");
        deployment.ask(interrupt)?;
        println!("\n== status");
        for words in [
            &["pods"][..],
            &["ps"],
            &["stats"],
            &["logs", "--tail", "3", "web-1"],
            &["logs", "--tail", "2", "pair/client"],
        ] {
            daemon.show(words)?;
        }
        if check {
            return Ok(());
        }
        deployment.print_invitation(daemon);
        interrupt.wait()
    }
}

/// Says how long a step took.
fn timed<T>(what: &str, step: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let started = Instant::now();
    let outcome = step();
    let verdict = if outcome.is_ok() { "" } else { " (failed)" };
    println!("[{:>7.2} s] {what}{verdict}", started.elapsed().as_secs_f64());
    outcome
}

fn print_sizes(programs: &Path) -> Result<(), String> {
    for name in ["coracle", "coracle-monitor", "coracled", "coraclectl"] {
        let path = programs.join(name);
        let size = std::fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.len();
        #[allow(clippy::cast_precision_loss)]
        let megabytes = size as f64 / 1e6;
        println!("            {name:<16} {megabytes:>5.1} MB");
    }
    Ok(())
}
