//! What a command that failed tells: the chain of causes, a hint, and an exit code by the kind of failure.

use std::process::ExitCode;

use coracle_image_store::error::chain;
use coracle_image_store::{ErrorKind, Kind};

/// A failure on its way to the user.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
    hint: Option<String>,
    kind: ErrorKind,
}

impl<E: Kind> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

impl Failure {
    pub(super) fn of(error: &dyn KindError) -> Self {
        Self { text: error.text(), hint: error.hint(), kind: error.kind() }
    }

    pub(super) fn io(action: &str, error: &std::io::Error) -> Self {
        Self { text: format!("{action}: {error}"), hint: None, kind: ErrorKind::from_io(error) }
    }

    pub(super) fn of_kind(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, kind }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, kind: ErrorKind::Invalid }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was done before the causes.
    pub(super) fn during(mut self, what: &str) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Prints it and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        self.print();
        ExitCode::from(exit_code(self.kind))
    }

    pub(super) fn print(&self) {
        eprintln!("coraclectl: {}", self.text);
        if let Some(hint) = &self.hint {
            eprintln!("  hint: {hint}");
        }
    }
}

/// `Kind` as an object, with its chain of causes.
pub(super) trait KindError {
    fn text(&self) -> String;
    fn hint(&self) -> Option<String>;
    fn kind(&self) -> ErrorKind;
}

impl<E: Kind> KindError for E {
    fn text(&self) -> String {
        chain(self)
    }

    fn hint(&self) -> Option<String> {
        Kind::hint(self)
    }

    fn kind(&self) -> ErrorKind {
        Kind::kind(self)
    }
}

const fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound => 3,
        ErrorKind::Denied => 4,
        ErrorKind::Unavailable => 5,
        ErrorKind::Corrupt => DAMAGED,
        ErrorKind::Exhausted => 7,
        ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Kernel => 1,
    }
}

/// The exit code for damaged content.
pub(super) const DAMAGED: u8 = 6;
