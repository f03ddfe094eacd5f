//! Fault points: named places at which a test makes a step fail or the process die.
//!
//! `CORACLE_FAULT=create.mounts=fail` makes the step return an error, `=kill` ends the process by SIGKILL there,
//! `create.mounts@3=kill` at the third passage. Compiled in by the feature `fault-points`, otherwise nothing is left of them.

/// An error injected by a test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault injected at {0}")]
pub struct Injected(pub &'static str);

/// Passes the fault point `name`: `Ok(())` unless a test asked for something else.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub const fn point(_name: &'static str) -> Result<(), Injected> {
    Ok(())
}

/// Passes the fault point `name`: `Ok(())` unless `CORACLE_FAULT` names it.
#[cfg(feature = "fault-points")]
pub fn point(name: &'static str) -> Result<(), Injected> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static PASSED: AtomicUsize = AtomicUsize::new(0);

    let Ok(wanted) = std::env::var("CORACLE_FAULT") else { return Ok(()) };
    let Some((place, action)) = wanted.split_once('=') else { return Ok(()) };
    let (wanted_name, at) = place.split_once('@').map_or((place, 1), |(n, k)| (n, k.parse().unwrap_or(1)));
    if wanted_name != name || PASSED.fetch_add(1, Ordering::Relaxed) + 1 != at {
        return Ok(());
    }
    match action {
        "kill" => {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
            // The first process of a pid namespace gets no fatal signal from itself.
            crate::sys::clone::exit_now(137);
            Err(Injected(name))
        }
        _ => Err(Injected(name)),
    }
}
