//! Why there is no guest, or no answer from it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// What can go wrong around a guest. The command's own failure is none of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{program}")]
    Spawn {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{program}: {status}\n{output}")]
    Program { program: String, status: ExitStatus, output: String },
    #[error("{0}")]
    Missing(String),
    #[error("{0} in the guest's request is not understood")]
    Request(String),
    #[error("the guest gave no status ({why}); its console ends with\n{console}")]
    NoStatus { why: String, console: String },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// The error with its causes, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

/// Runs a program to its end, in silence; what it said is part of the error.
pub(crate) fn succeed(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|source| Error::Spawn { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Program { program, status: output.status, output: last_lines(&said, 20) })
}

/// The end of a long text.
pub(crate) fn last_lines(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}
