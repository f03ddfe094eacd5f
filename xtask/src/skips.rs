//! Skips are counted and must be allowed: a suite that skips more and more stays green while it shows less and less.
//!
//! A test that cannot run here appends `SKIP <test>: <reason>` to the file that `CORACLE_SKIPS` names and returns.
//! `tests/skips.txt` lists the names that may do so, one a line, `#` begins a comment; a name may end in `*`.
//! `tests/known-failures.txt` has the same form: defects that are known and written down. They are counted with the
//! skipped ones, never with the passed.

use std::path::Path;

/// One recorded skip.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip {
    pub test: String,
    pub reason: String,
}

/// Reads what the tests recorded; each test once.
pub fn recorded(text: &str) -> Vec<Skip> {
    let mut skips: Vec<Skip> = text
        .lines()
        .filter_map(|line| line.strip_prefix("SKIP "))
        .map(|rest| rest.split_once(": ").unwrap_or((rest, "no reason")))
        .map(|(test, reason)| Skip { test: test.trim().to_owned(), reason: reason.to_owned() })
        .collect();
    skips.sort();
    skips.dedup_by(|a, b| a.test == b.test);
    skips
}

/// The names that may skip.
pub fn allowed(path: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Whether `test` may skip. Module paths of test programs differ in their first part, so a listed name matches the end.
pub fn is_allowed(allowed: &[String], test: &str) -> bool {
    allowed.iter().any(|name| match name.strip_suffix('*') {
        Some(prefix) => test.starts_with(prefix),
        None => test == name || test.ends_with(&format!("::{name}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_are_read_once_each() {
        let found = recorded("SKIP b: no root\nSKIP a::x: no v2: here\nnoise\nSKIP b: no root\n");
        let names: Vec<_> = found.iter().map(|skip| (skip.test.as_str(), skip.reason.as_str())).collect();
        assert_eq!(names, [("a::x", "no v2: here"), ("b", "no root")]);
    }

    #[test]
    fn names_match_whole_or_by_prefix() {
        let allowed = ["guest_*".to_owned(), "needs_v2".to_owned()];
        assert!(is_allowed(&allowed, "guest_boots"));
        assert!(is_allowed(&allowed, "cgroup::needs_v2"));
        assert!(!is_allowed(&allowed, "needs_v2_too"));
    }
}
