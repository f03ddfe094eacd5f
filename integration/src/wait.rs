//! Waiting for conditions, never for a time.

use std::time::{Duration, Instant};

use rustix::event::poll;
use rustix::fs::Timespec;

/// What a test waits for at most where nothing else is said; generous, because two cores run everything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until `condition` holds; whether it did before the deadline.
pub fn until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        // No descriptor tells of a change in another process's files: look again a little later.
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
    }
}

/// Asks until `find` has an answer.
pub fn for_some<T>(deadline: Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let mut found = None;
    until(deadline, || {
        found = find();
        found.is_some()
    });
    found
}
