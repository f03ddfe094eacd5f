//! Signals that `rustix::process::Signal` has no name for.

use rustix::process::Signal;

/// The real-time signal `number` (34 to 64; signal(7)), or `None` for every other number.
#[must_use]
pub fn realtime(number: i32) -> Option<Signal> {
    if !(34..=64).contains(&number) {
        return None;
    }
    // SAFETY: a number of 34 to 64 is a valid signal that libc does not reserve (it keeps 32 and 33), and it is only
    // sent to another process.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}
