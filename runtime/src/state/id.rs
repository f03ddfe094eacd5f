//! Which container ids are valid: runc's rule, because callers make ids that only have to satisfy runc.

use super::Error;

/// Accepts `[A-Za-z0-9_+,.-]+` except `.` and `..` (runc's `^[\w+-\.]+$`, where `+-.` is a range).
pub fn validate_id(id: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | ',' | '-' | '.');
    match id {
        "" => Err(Error::EmptyId),
        "." | ".." => Err(Error::InvalidId),
        _ if id.chars().all(allowed) => Ok(()),
        _ => Err(Error::InvalidId),
    }
}

#[cfg(test)]
mod tests {
    use super::validate_id;

    #[test]
    fn follows_runc() {
        for good in ["a", "A_1+b-c.d", "...", "a,b", "-x", &"f".repeat(64)] {
            assert!(validate_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../a", "a b", "é", "a\n", "a:b", "@"] {
            assert!(validate_id(bad).is_err(), "{bad}");
        }
    }
}
