//! `coracle-bench-cri [ROUNDS [PODS]]`: `coracled` beside Debian's containerd with runc and with crun, over the CRI.
//!
//! One program, one run, candidates in turns: a round takes each candidate through a pod's life once, call by call. Then
//! many pods at once, up and down, with the memory that they cost beside their containers. `cargo xtask bench cri` runs
//! this in network and mount namespaces of its own and writes the section "Pods" of docs/performance.md.

mod daemons;
mod life;
mod memory;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use coracle_integration::images::{self, Registry};
use coracle_integration::web_image;

use daemons::{Candidate, Daemons};
use life::{Network, STEPS};
use report::{Calls, Crowd};

const ROUNDS: usize = 20;
const PODS: usize = 100;

/// The page that the table is a section of.
const PAGE: &str = "docs/performance.md";

fn main() -> ExitCode {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let rounds = numbers.first().copied().unwrap_or(ROUNDS);
    let pods = numbers.get(1).copied().unwrap_or(PODS);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(compare(rounds, pods)));
    match outcome.and_then(|text| report::write(Path::new(PAGE), &text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle-bench-cri: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare(rounds: usize, pods: usize) -> Result<String, String> {
    let work = tempfile::Builder::new().prefix("cb").tempdir_in("/var/tmp").map_err(|e| e.to_string())?;
    let registry = Registry::start(work.path()).map_err(|e| format!("docker-registry: {e}"))?;
    let client = web_image::client(work.path()).map_err(|e| format!("image: {e}"))?;
    let image = registry.push_layout(&client, "client").map_err(|e| format!("push: {e}"))?;
    let pause = pause(work.path(), &registry)?;
    let daemons = Daemons::start(work.path(), &pause)?;
    let mut candidates = daemons.candidates().await?;
    for candidate in &mut candidates {
        candidate.pull(&image).await?;
    }
    let mut calls = Vec::new();
    for network in [Network::Host, Network::Pod] {
        calls.extend(lives(&candidates, network, &image, rounds).await?);
    }
    let mut crowds = Vec::new();
    for candidate in &candidates {
        crowds.push(crowd(candidate, &image, pods).await?);
    }
    Ok(report::render(&calls, &crowds, rounds, pods))
}

/// Rounds of a pod's life, candidates in turns.
async fn lives(
    candidates: &[Candidate],
    network: Network,
    image: &str,
    rounds: usize,
) -> Result<Vec<Calls>, String> {
    let mut found: Vec<Calls> = candidates
        .iter()
        .map(|candidate| Calls { candidate: candidate.name, network, samples: vec![Vec::new(); STEPS.len()] })
        .collect();
    for round in 0..=rounds {
        for (candidate, calls) in candidates.iter().zip(&mut found) {
            let times = life::live(candidate, network, image, round).await?;
            // The first round warms caches.
            if round > 0 {
                calls.samples.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
            }
        }
    }
    Ok(found)
}

/// Many pods at once: up, weighed, down.
async fn crowd(candidate: &Candidate, image: &str, pods: usize) -> Result<Crowd, String> {
    let before = candidate.daemon_memory()?;
    let started = Instant::now();
    let ids = life::all_up(candidate, image, pods).await?;
    let up = started.elapsed();
    let helpers = candidate.helper_memory()?;
    let daemon = candidate.daemon_memory()?;
    let started = Instant::now();
    life::all_down(candidate, ids).await?;
    Ok(Crowd {
        candidate: candidate.name,
        up,
        down: started.elapsed(),
        helpers,
        daemon: daemon.saturating_sub(before),
    })
}

/// What containerd runs in every pod: a program that waits, as small as the real one.
fn pause(work: &Path, registry: &Registry) -> Result<String, String> {
    const SOURCE: &str = "#include <unistd.h>\n#include <signal.h>\nstatic void end(int s) { (void)s; _exit(0); }\n\
        int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }\n";
    let root = work.join("pause");
    std::fs::create_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
    let source = work.join("pause.c");
    std::fs::write(&source, SOURCE).map_err(|e| format!("{}: {e}", source.display()))?;
    let status = std::process::Command::new("cc")
        .args(["-static", "-Os", "-s", "-o"])
        .arg(root.join("pause"))
        .arg(&source)
        .status()
        .map_err(|e| format!("cc: {e}"))?;
    if !status.success() {
        return Err(format!("cc: {status}"));
    }
    let describe = |e: std::io::Error| format!("pause image: {e}");
    let layer = images::layer(work, "pause", &root).map_err(describe)?;
    let archive = images::archive_with(work, "pause", &[&layer], &["/pause"]).map_err(describe)?;
    registry.push(&archive, "pause", &[]).map_err(describe)
}
