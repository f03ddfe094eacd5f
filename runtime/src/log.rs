//! The log as runc's users read it: logrus's text and JSON lines, to `--log` or stderr.
//!
//! Docker and containerd read the JSON file for the reason of a failure; people read stderr. With `--log` the final error
//! goes to both, as runc does.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use crate::state::now_rfc3339_seconds;

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// logrus's short name and colour on a terminal.
    const fn on_terminal(self) -> (&'static str, u8) {
        match self {
            Self::Debug => ("DEBU", 37),
            Self::Info => ("INFO", 36),
            Self::Warning => ("WARN", 33),
            Self::Error => ("ERRO", 31),
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    file: Option<RefCell<File>>,
    format: Format,
    debug: bool,
    terminal: bool,
    start: Instant,
}

impl Log {
    /// Lines to stderr.
    #[must_use]
    pub fn stderr(format: Format, debug: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { file: None, format, debug, terminal, start: Instant::now() }
    }

    /// Lines appended to `path`, which is made where it is missing.
    pub fn file(path: &Path, format: Format, debug: bool) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .custom_flags(libc::O_SYNC | libc::O_CLOEXEC)
            .open(path)?;
        let terminal = file.is_terminal();
        Ok(Self { file: Some(RefCell::new(file)), format, debug, terminal, start: Instant::now() })
    }

    /// Whether lines go to stderr, so that the final error need not be printed there again.
    #[must_use]
    pub const fn is_stderr(&self) -> bool {
        self.file.is_none()
    }

    /// Whether debug lines are wanted.
    #[must_use]
    pub const fn is_debug(&self) -> bool {
        self.debug
    }

    pub fn error(&self, message: &str) {
        self.write(Level::Error, message);
    }

    pub fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    pub fn debug(&self, message: &str) {
        if self.debug {
            self.write(Level::Debug, message);
        }
    }

    /// A log that cannot be written is no reason to fail: the caller has nobody to tell.
    fn write(&self, level: Level, message: &str) {
        let line = match self.format {
            Format::Json => json_line(level, message, &now_rfc3339_seconds()),
            Format::Text if self.terminal => terminal_line(level, message, self.start.elapsed().as_secs()),
            Format::Text => text_line(level, message, &now_rfc3339_seconds()),
        };
        let _ = match &self.file {
            Some(file) => file.borrow_mut().write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn json_line(level: Level, message: &str, time: &str) -> String {
    let line = serde_json::json!({"level": level.as_str(), "msg": message, "time": time});
    format!("{line}\n")
}

fn text_line(level: Level, message: &str, time: &str) -> String {
    format!("time=\"{time}\" level={} msg={}\n", level.as_str(), quoted_where_needed(message))
}

fn terminal_line(level: Level, message: &str, seconds: u64) -> String {
    let (name, colour) = level.on_terminal();
    format!("\x1b[{colour}m{name}\x1b[0m[{seconds:04}] {:<44} \n", message.trim_end_matches('\n'))
}

/// logrus quotes a value (Go's `%q`) unless it is a plain word.
fn quoted_where_needed(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { go_quote(text) }
}

/// Go's `strconv.Quote`.
#[must_use]
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_logrus_lines() {
        let time = "2026-11-25T19:24:05Z";
        assert_eq!(
            text_line(Level::Error, "container does not exist", time),
            "time=\"2026-11-25T19:24:05Z\" level=error msg=\"container does not exist\"\n"
        );
        assert_eq!(
            text_line(Level::Warning, "a-b", time),
            "time=\"2026-11-25T19:24:05Z\" level=warning msg=a-b\n"
        );
        assert_eq!(
            json_line(Level::Error, "exec: \"x\": no\n", time),
            "{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": no\\n\",\"time\":\"2026-11-25T19:24:05Z\"}\n"
        );
        assert_eq!(
            terminal_line(Level::Error, "short", 3),
            format!("\x1b[31mERRO\x1b[0m[0003] short{} \n", " ".repeat(39))
        );
    }

    #[test]
    fn quotes_as_go() {
        assert_eq!(go_quote("a\"b\\c\n\t\x01\x7fé"), "\"a\\\"b\\\\c\\n\\t\\x01\\x7fé\"");
    }
}
