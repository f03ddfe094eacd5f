//! The command line as runc's flag package reads it (Go's `flag` below urfave/cli v1).
//!
//! `-flag` is `--flag`; a value follows in the same word after `=` or in the next word; a switch may be given `=true` or
//! `=false`; short names are not bundled. Flags may also come after the arguments, except for verbs that pass arguments
//! on (`exec`, `ps`). `--` ends the flags. Crates for it read `-bundle` as five switches.

use std::collections::BTreeMap;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagKind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// Text; the last one given counts.
    Text,
    /// Text; all given count, in order.
    List,
    /// A whole number.
    Int,
    /// A Go duration (`5s`, `1m30s`, `200ms`).
    Duration,
}

/// One flag of a verb.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// The long name first, then the others.
    pub names: &'static [&'static str],
    pub kind: FlagKind,
    pub help: &'static str,
    /// Shown in the help.
    pub default: Option<&'static str>,
}

impl Flag {
    /// A flag without a default.
    #[must_use]
    pub const fn new(names: &'static [&'static str], kind: FlagKind, help: &'static str) -> Self {
        Self { names, kind, help, default: None }
    }

    const fn key(&self) -> &'static str {
        self.names[0]
    }
}

/// What a command line said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    values: BTreeMap<&'static str, Vec<String>>,
    /// `--help` or `-h` was given.
    pub help: bool,
    /// What is not a flag.
    pub args: Vec<String>,
}

impl Parsed {
    /// Whether a switch is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// Whether the flag was given at all.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The last value given; an empty one counts as none, as runc's callers pass `--pid-file ""`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.last().map(String::as_str).filter(|text| !text.is_empty())
    }

    /// All values given.
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// A number (the parser has checked that it is one).
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        parse_int(self.text(name)?)
    }
}

/// Why a command line does not parse, in the words of Go's package `flag`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("invalid boolean value {} for -{name}: parse error", crate::log::go_quote(.value))]
    BadSwitch { name: String, value: String },
    #[error("invalid value {} for flag -{name}: parse error", crate::log::go_quote(.value))]
    BadValue { name: String, value: String },
    #[error("bad flag syntax: {0}")]
    Syntax(String),
}

/// Parses words up to the first that is not a flag.
pub fn parse(flags: &[Flag], words: &[String]) -> Result<Parsed, Error> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some((name, inline)) = split(word)? else {
            if word != "--" {
                parsed.args.push(word.clone());
            }
            break;
        };
        match flags.iter().find(|flag| flag.names.contains(&name)) {
            Some(flag) => {
                let value = value_of(flag, name, inline, &mut words)?;
                parsed.values.entry(flag.key()).or_default().push(value);
            }
            None if name == "help" || name == "h" => parsed.help = true,
            None => return Err(Error::Unknown(name.to_owned())),
        }
    }
    parsed.args.extend(words.cloned());
    Ok(parsed)
}

/// Moves the verb's own flags, with their values, before the arguments. Unknown ones stay where they are.
#[must_use]
pub fn reorder(flags: &[Flag], words: &[String]) -> Vec<String> {
    let (mut front, mut rest) = (Vec::new(), Vec::new());
    let mut index = 0;
    while index < words.len() {
        let word = &words[index];
        index += 1;
        if word == "--" {
            rest.extend_from_slice(&words[index - 1..]);
            break;
        }
        let Some(flag) = known(flags, word) else {
            rest.push(word.clone());
            continue;
        };
        front.push(word.clone());
        let takes_next = flag.is_some_and(|kind| kind != FlagKind::Switch) && !word.contains('=');
        if takes_next && index < words.len() && words[index] != "--" {
            front.push(words[index].clone());
            index += 1;
        }
    }
    front.extend(rest);
    front
}

/// `Some(Some(kind))` for one of the verb's flags, `Some(None)` for the help flag.
fn known(flags: &[Flag], word: &str) -> Option<Option<FlagKind>> {
    let (name, _) = split(word).ok()??;
    match flags.iter().find(|flag| flag.names.contains(&name)) {
        Some(flag) => Some(Some(flag.kind)),
        None => matches!(name, "help" | "h").then_some(None),
    }
}

/// The name and the inline value of a flag word; `None` for an argument or the terminator.
fn split(word: &str) -> Result<Option<(&str, Option<&str>)>, Error> {
    let Some(body) = word.strip_prefix('-').filter(|body| !body.is_empty()) else { return Ok(None) };
    let body = body.strip_prefix('-').unwrap_or(body);
    if body.is_empty() {
        return Ok(None);
    }
    if body.starts_with(['-', '=']) {
        return Err(Error::Syntax(word.to_owned()));
    }
    Ok(Some(body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)))))
}

fn value_of<'a>(
    flag: &Flag,
    name: &str,
    inline: Option<&str>,
    words: &mut impl Iterator<Item = &'a String>,
) -> Result<String, Error> {
    if flag.kind == FlagKind::Switch {
        let value = inline.unwrap_or("true");
        return parse_bool(value)
            .map(|on| on.to_string())
            .ok_or_else(|| Error::BadSwitch { name: name.to_owned(), value: value.to_owned() });
    }
    let value = match inline {
        Some(value) => value.to_owned(),
        None => words.next().cloned().ok_or_else(|| Error::NoValue(name.to_owned()))?,
    };
    let good = match flag.kind {
        FlagKind::Int => parse_int(&value).is_some(),
        FlagKind::Duration => parse_duration(&value).is_some(),
        FlagKind::Switch | FlagKind::Text | FlagKind::List => true,
    };
    if good { Ok(value) } else { Err(Error::BadValue { name: name.to_owned(), value }) }
}

/// Go's `strconv.ParseBool`.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's integer flags take decimal and, after a prefix, hexadecimal, octal and binary.
fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// Go's `time.ParseDuration`, for the units that make sense here.
#[must_use]
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(std::time::Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end =
            rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |n| end + n);
        seconds += number
            * match &rest[end..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() { None } else { std::time::Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::new(&["bundle", "b"], FlagKind::Text, ""),
        Flag::new(&["force", "f"], FlagKind::Switch, ""),
        Flag::new(&["env", "e"], FlagKind::List, ""),
        Flag::new(&["preserve-fds"], FlagKind::Int, ""),
        Flag::new(&["interval"], FlagKind::Duration, ""),
    ];

    fn words(line: &str) -> Vec<String> {
        line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    fn show(line: &str) -> String {
        match parse(FLAGS, &reorder(FLAGS, &words(line))) {
            Ok(p) => format!("{:?} {:?}", p.values, p.args),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn as_go_reads_them() {
        for (line, want) in [
            ("--bundle /b c1", r#"{"bundle": ["/b"]} ["c1"]"#),
            ("-bundle=/b c1", r#"{"bundle": ["/b"]} ["c1"]"#),
            ("c1 -b /b", r#"{"bundle": ["/b"]} ["c1"]"#),
            ("c1 --force", r#"{"force": ["true"]} ["c1"]"#),
            ("--force c1 KILL", r#"{"force": ["true"]} ["c1", "KILL"]"#),
            ("c1 --force KILL", r#"{"force": ["true"]} ["c1", "KILL"]"#),
            ("--force=false c1", r#"{"force": ["false"]} ["c1"]"#),
            ("c1 -9", r#"{} ["c1", "-9"]"#),
            ("-- -b x", r#"{} ["-b", "x"]"#),
            ("-e A=1 --env B=2 c", r#"{"env": ["A=1", "B=2"]} ["c"]"#),
            ("-b -", r#"{"bundle": ["-"]} []"#),
            ("--preserve-fds 0x10 c", r#"{"preserve-fds": ["0x10"]} ["c"]"#),
            ("--preserve-fds x", "invalid value \"x\" for flag -preserve-fds: parse error"),
            ("--force=maybe", "invalid boolean value \"maybe\" for -force: parse error"),
            ("--bogus", "flag provided but not defined: -bogus"),
            ("--bundle", "flag needs an argument: -bundle"),
            ("---x", "bad flag syntax: ---x"),
            ("--interval 1h", r#"{"interval": ["1h"]} []"#),
        ] {
            assert_eq!(show(line), want, "{line}");
        }
    }

    #[test]
    fn arguments_are_not_searched_without_reordering() {
        let parsed = parse(FLAGS, &words("--env A=1 c1 ls --force -b x")).unwrap();
        assert_eq!(parsed.args, words("c1 ls --force -b x"));
        assert!(!parsed.is_on("force"));
    }

    #[test]
    fn numbers_and_durations() {
        for (text, want) in
            [("10", Some(10)), ("-1", Some(-1)), ("010", Some(8)), ("0", Some(0)), ("--1", None)]
        {
            assert_eq!(parse_int(text), want, "{text}");
        }
        for (text, want) in
            [("5s", Some(5000)), ("1m30s", Some(90_000)), ("1.5s", Some(1500)), ("5", None), ("", None)]
        {
            let got = parse_duration(text).map(|d| d.as_millis());
            assert_eq!(got, want, "{text}");
        }
    }
}
