//! RFC 3339 times, as they stand in log files, to and from nanoseconds since 1970.

use coracle_runtime::state::civil;

const DAY: i64 = 86_400;
const NANOSECONDS: i64 = 1_000_000_000;

/// `2026-11-25T21:00:00.5Z` or with an offset; None for anything else.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let (year, rest_of_date) = date.split_once('-')?;
    let (month, day) = rest_of_date.split_once('-')?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = parts.next().is_none() && hour < 24 && minute < 60 && second < 61;
    let days = days_since_1970(number(year)?, number(month)?, number(day)?)?;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second - offset(zone)?;
    valid.then(|| seconds.checked_mul(NANOSECONDS)?.checked_add(nanoseconds(fraction)?))?
}

/// `2026-11-25T21:00:00Z`, to the second.
pub(super) fn format(nanoseconds: i64) -> String {
    let seconds = nanoseconds.div_euclid(NANOSECONDS);
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let clock = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `90s`, `15m`, `2h`, `3d` or plain seconds, in nanoseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (count, unit) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        (at, 'd') => (&text[..at], DAY),
        _ => (text, 1),
    };
    number(count)?.checked_mul(unit)?.checked_mul(NANOSECONDS)
}

fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn nanoseconds(fraction: &str) -> Option<i64> {
    if fraction.is_empty() {
        return Some(0);
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    number(&digits)
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let seconds = number(hours)? * 3600 + number(minutes)? * 60;
    Some(if zone.starts_with('-') { -seconds } else { seconds })
}

/// The proleptic Gregorian calendar with years that begin in March, so that the leap day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 9999 {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (text, seconds, fraction) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2000-02-29T12:00:00Z", 951_825_600, 0),
            ("2026-11-25T21:42:32.000000001Z", 1_795_642_952, 1),
            ("2026-11-25T23:42:32.5+02:00", 1_795_642_952, 500_000_000),
            ("1969-12-31T23:59:59Z", -1, 0),
        ] {
            assert_eq!(parse(text), Some(seconds * NANOSECONDS + fraction), "{text}");
        }
        for text in ["", "2026-11-25", "2026-13-01T00:00:00Z", "2026-11-25T25:00:00Z", "2026-11-25T21:00:00"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_printed_as_they_are_read() {
        // Nanoseconds in 64 bits reach from 1677 to 2262.
        for days in (-100_000..100_000).step_by(7) {
            let time = (days * DAY + 3661) * NANOSECONDS;
            assert_eq!(parse(&format(time)), Some(time), "{}", format(time));
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("90", Some(90)), ("90s", Some(90)), ("15m", Some(900)), ("2h", Some(7200))] {
            assert_eq!(duration(text), seconds.map(|count: i64| count * NANOSECONDS));
        }
        assert_eq!((duration("h"), duration("-1s"), duration("")), (None, None, None));
    }
}
