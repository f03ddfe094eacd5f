//! One measured operation: wall time, processor time and page faults of all its processes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};

/// What one operation took.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub wall: Duration,
    pub cpu: Duration,
    pub page_faults: i64,
}

/// Runs the commands one after the other, without input or output.
pub fn measure(commands: Vec<Command>) -> Result<Sample, String> {
    let before = children()?;
    let started = Instant::now();
    for mut command in commands {
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| format!("{command:?}: {error}"))?;
        if !status.success() {
            return Err(format!("{command:?}: {status}"));
        }
    }
    let wall = started.elapsed();
    let after = children()?;
    Ok(Sample {
        wall,
        cpu: processor_time(&after).saturating_sub(processor_time(&before)),
        page_faults: after.minor_page_faults() - before.minor_page_faults(),
    })
}

fn children() -> Result<Usage, String> {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|error| format!("getrusage: {error}"))
}

fn processor_time(usage: &Usage) -> Duration {
    let one = |time: nix::sys::time::TimeVal| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0));
        seconds + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
    };
    one(usage.user_time()) + one(usage.system_time())
}

/// Lets the machine rest: the interval is the thing measured here, so a time is what is waited for.
pub fn pause(interval: Duration) {
    if let Ok(interval) = rustix::fs::Timespec::try_from(interval) {
        let _ = rustix::event::poll(&mut [], Some(&interval));
    }
}

/// The number of calls in the last line of `strace -c`: `100.00  0.004  5  812  36 total`.
pub fn traced_total(summary: &str) -> Option<u64> {
    let line = summary.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_trace() {
        let summary = "% time ...\n------ ---\n100.00    0.004211           5       812        36 total\n";
        assert_eq!(traced_total(summary), Some(812));
        assert_eq!(traced_total("nothing"), None);
    }
}
