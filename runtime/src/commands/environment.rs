//! The environment, read once in `main` and handed on.

use std::ffi::OsString;

/// The variables that the program was started with.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Reads the process's environment.
    #[must_use]
    pub fn read() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// The value of a variable, where it is set, not empty and UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.variables.iter().find(|(key, _)| key == name)?;
        value.to_str().filter(|value| !value.is_empty())
    }

    /// All variables, for hooks that configure none.
    #[must_use]
    pub fn all(&self) -> &[(OsString, OsString)] {
        &self.variables
    }
}
