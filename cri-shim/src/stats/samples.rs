//! Processor use over time: the difference of two readings.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// Readings closer than this say too little, in nanoseconds.
const LEAST: i64 = 1_000_000_000;

/// The last reading of each object, and the rate that it gave.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<HashMap<String, Sample>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: i64,
    total: u64,
    rate: Option<u64>,
}

impl Samples {
    /// Billionths of a core since the last reading; `None` at the first one. `at` is in nanoseconds.
    pub(super) fn rate(&self, id: &str, at: i64, total: u64) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = samples.get(id).copied();
        let rate = match last {
            Some(last) if at - last.at < LEAST => return last.rate,
            Some(last) => {
                let used = u128::from(total.saturating_sub(last.total)) * 1_000_000_000;
                u64::try_from(used / u128::from((at - last.at).unsigned_abs())).ok()
            }
            None => None,
        };
        samples.insert(id.to_owned(), Sample { at, total, rate });
        rate
    }

    /// Forgets objects that are gone.
    pub(super) fn keep(&self, ids: &BTreeSet<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| ids.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_readings_a_second_apart() {
        let samples = Samples::default();
        assert_eq!(samples.rate("a", 0, 0), None);
        assert_eq!(samples.rate("a", 500_000_000, 1), None);
        assert_eq!(samples.rate("a", 2_000_000_000, 1_000_000_000), Some(500_000_000));
        assert_eq!(samples.rate("a", 2_100_000_000, 9_000_000_000), Some(500_000_000), "too soon");
        samples.keep(&BTreeSet::new());
        assert_eq!(samples.rate("a", 9_000_000_000, 1), None);
    }
}
