//! Numbers as tar writes them: octal text, base-256, and the decimal text of PAX.

use super::Timestamp;

/// Parses a header field: octal with leading blanks and a trailing NUL or blank, or base-256 when the top bit is set.
/// An empty field is 0.
pub fn field(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base_256(bytes),
        _ => octal(bytes),
    }
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let text = bytes.trim_ascii_start();
    let end = text.iter().position(|&byte| byte == 0 || byte == b' ').unwrap_or(text.len());
    text[..end].iter().try_fold(0_i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

// GNU's binary form: big endian, two's complement with the top bit as a marker.
fn base_256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { i128::from(bytes[0]) - 0x100 } else { i128::from(bytes[0] & 0x7f) };
    let value =
        bytes[1..].iter().try_fold(first, |value, &byte| value.checked_mul(256)?.checked_add(byte.into()))?;
    i64::try_from(value).ok()
}

/// Parses an unsigned decimal number without sign or blanks.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, &digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add((digit - b'0').into()),
        _ => None,
    })
}

/// Parses a PAX time: `[-]seconds[.fraction]`; digits beyond nanoseconds are cut.
pub fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields() {
        for (bytes, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"0000648\0", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(field(bytes), value, "{bytes:?}");
        }
    }

    #[test]
    fn pax_times() {
        let time = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        for (text, value) in [
            (&b"12"[..], time(12, 0)),
            (b"12.5", time(12, 500_000_000)),
            (b"12.0000000019", time(12, 1)),
            (b"-1.25", time(-2, 750_000_000)),
            (b"-3", time(-3, 0)),
            (b"1.", time(1, 0)),
            (b"", None),
            (b".5", None),
            (b"1.x", None),
            (b"99999999999999999999", None),
        ] {
            assert_eq!(timestamp(text), value, "{text:?}");
        }
    }
}
