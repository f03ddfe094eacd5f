//! Reads the report of Rust's test harness.

/// What one test program reported.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
    /// Names of the tests that failed, as the harness lists them at its end.
    pub failed_names: Vec<String>,
    /// Names of the tests marked `#[ignore]`.
    pub ignored: Vec<String>,
    /// Whether the harness came to its last line; it does not when the program is killed.
    pub complete: bool,
}

/// Reads a whole output. The last line counts where it is there, because what a test's child processes print can tear
/// the lines before it.
pub fn parse(output: &str) -> Report {
    let mut report = Report::default();
    for line in output.lines() {
        if let Some(rest) = line.strip_prefix("test ") {
            match rest.rsplit_once(" ... ") {
                Some((_, "ok")) => report.passed += 1,
                Some((_, "FAILED")) => report.failed += 1,
                Some((name, verdict)) if verdict.starts_with("ignored") => {
                    report.ignored.push(name.to_owned())
                }
                _ => {}
            }
        }
    }
    if let Some(summary) = output.lines().rev().find_map(|line| line.strip_prefix("test result: ")) {
        report.complete = true;
        report.passed = counted(summary, "passed").unwrap_or(report.passed);
        report.failed = counted(summary, "failed").unwrap_or(report.failed);
    }
    report.failed_names = listed_failures(output);
    report
}

/// The names below the last `failures:`, which no other output can tear.
fn listed_failures(output: &str) -> Vec<String> {
    let Some((_, list)) = output.rsplit_once("\nfailures:\n") else { return Vec::new() };
    list.lines().map_while(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
}

/// The part of the output that tells why tests failed: their captured output and panics.
pub fn failures(output: &str) -> &str {
    match output.find("\nfailures:\n") {
        Some(start) => &output[start..],
        None => &output[output.len() - tail_len(output, 6000)..],
    }
}

/// At most `most` bytes from the end, at a character's boundary.
fn tail_len(text: &str, most: usize) -> usize {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.len() - start
}

/// `12` from `ok. 12 passed; 0 failed; …` for `passed`.
fn counted(summary: &str, word: &str) -> Option<usize> {
    let words: Vec<&str> = summary.split_whitespace().collect();
    let at = words.iter().position(|found| found.trim_end_matches(';') == word)?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_run_counts_by_its_last_line() {
        let report = parse(
            "running 3 tests\ntest a ... ok\ntest b::c ... FAILED\ntest d ... ignored, slow\n\
             \nfailures:\n\n---- b::c stdout ----\nx\n\nfailures:\n    b::c\n\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            report,
            Report {
                passed: 1,
                failed: 1,
                failed_names: vec!["b::c".to_owned()],
                ignored: vec!["d".to_owned()],
                complete: true
            }
        );
    }

    #[test]
    fn a_killed_run_is_incomplete() {
        let report = parse("running 2 tests\ntest a ... ok\ntest b ... ");
        assert_eq!((report.passed, report.failed, report.complete), (1, 0, false));
    }

    #[test]
    fn torn_lines_do_not_lose_tests() {
        let report =
            parse("test a ... hello from a child\nok\ntest result: ok. 1 passed; 0 failed; 0 ignored\n");
        assert_eq!((report.passed, report.failed), (1, 0));
    }

    #[test]
    fn the_reasons_of_failures_are_found() {
        assert!(
            failures("test a ... FAILED\n\nfailures:\n\n---- a stdout ----\npanicked").contains("panicked")
        );
        assert_eq!(failures("killed"), "killed");
    }
}
