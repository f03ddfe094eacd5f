//! Times as runc writes them: RFC 3339 in UTC with nanoseconds, without a date library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day, e.g. `2026-11-25T19:24:05.123456789Z`.
#[must_use]
pub fn now_rfc3339() -> String {
    let now = since_1970();
    render(whole_seconds(now), now.subsec_nanos())
}

/// The time of day in whole seconds, as log lines carry it.
#[must_use]
pub fn now_rfc3339_seconds() -> String {
    render(whole_seconds(since_1970()), 0)
}

/// The library's clock and not rustix', which panics where the vDSO is incomplete (user-mode Linux).
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Go's `time.RFC3339Nano`: trailing zeros of the fraction are cut.
pub(crate) fn render(seconds: i64, nanoseconds: u32) -> String {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let rest = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = match nanoseconds {
        0 => String::new(),
        n => format!(".{n:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Days since 1970-01-01 as year, month and day of the Gregorian calendar (Hinnant's `civil_from_days`).
#[must_use]
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let index = (5 * day_of_year + 2) / 153;
    let month = if index < 10 { index + 3 } else { index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * index + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn renders_as_go_does() {
        for (seconds, nanoseconds, want) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (1_709_164_799, 120_000_000, "2024-02-28T23:59:59.12Z"),
            (1_735_689_599, 999_999_999, "2024-12-31T23:59:59.999999999Z"),
            (4_107_542_400, 1, "2100-03-01T00:00:00.000000001Z"),
        ] {
            assert_eq!(render(seconds, nanoseconds), want);
        }
    }
}
