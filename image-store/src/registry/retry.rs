//! When to try again: exponential delays with jitter, the registry's `Retry-After` where it gives one, and a count of
//! attempts that begins anew whenever there was progress.

use std::time::Duration;

use super::Error;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
/// A registry that wants longer than this is not waited for.
const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// The attempts at one thing.
#[derive(Debug)]
pub struct Retry {
    limit: u32,
    failed: u32,
}

impl Retry {
    /// At most `limit` attempts without progress.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        Self { limit, failed: 0 }
    }

    /// Something came: the count begins anew.
    pub const fn progress(&mut self) {
        self.failed = 0;
    }

    /// After a failure: how long to wait, or nothing when the error is final.
    #[must_use]
    pub fn delay(&mut self, error: &Error) -> Option<Duration> {
        self.failed += 1;
        if !error.may_pass() || self.failed >= self.limit {
            return None;
        }
        if let Some(asked) = error.retry_after() {
            return (asked <= LONGEST_ASKED).then_some(asked);
        }
        let full = FIRST.saturating_mul(1 << (self.failed - 1).min(10)).min(LONGEST);
        Some(full.mul_f64(0.75 + 0.25 * jitter()))
    }
}

// Spreads clients that failed together; needs no quality.
fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    f64::from(nanos % 1000) / 1000.0
}

/// `Retry-After` in seconds; the form with a date is taken as no wish.
#[must_use]
pub fn parse_retry_after(value: &str) -> Option<Duration> {
    value.trim().parse::<u64>().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, after: Option<u64>) -> Error {
        Error::Status {
            url: String::new(),
            status: reqwest::StatusCode::from_u16(code).unwrap(),
            message: String::new(),
            retry_after: after.map(Duration::from_secs),
        }
    }

    #[test]
    fn gives_up_without_progress_and_obeys_the_registry() {
        let mut retry = Retry::new(3);
        assert!(retry.delay(&status(503, None)).unwrap() <= FIRST);
        assert!(retry.delay(&status(503, None)).unwrap() <= FIRST * 2);
        assert_eq!(retry.delay(&status(503, None)), None);
        retry.progress();
        assert_eq!(retry.delay(&status(429, Some(7))), Some(Duration::from_secs(7)));
        assert_eq!(retry.delay(&status(429, Some(7000))), None);
        assert_eq!(Retry::new(3).delay(&status(404, None)), None);
    }
}
