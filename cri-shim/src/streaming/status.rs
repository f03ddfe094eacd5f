//! What is said on the error stream at the end: from version 4 on a `metav1.Status`, before it a line of text or nothing.

use bytes::Bytes;
use serde_json::json;

/// How an exec or an attach ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// The process ran and ended with this code.
    ExitCode(i32),
    /// It did not come to that.
    Failure(String),
}

impl Outcome {
    pub(super) const fn of(code: i32) -> Self {
        if code == 0 { Self::Success } else { Self::ExitCode(code) }
    }

    /// As JSON or as text; none where text has nothing to say.
    pub(super) fn render(&self, json: bool) -> Option<Bytes> {
        if json {
            return Some(self.status().to_string().into());
        }
        match self {
            Self::Success => None,
            Self::ExitCode(code) => Some(format!("command terminated with exit code {code}").into()),
            Self::Failure(why) => Some(why.clone().into()),
        }
    }

    fn status(&self) -> serde_json::Value {
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::ExitCode(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit code {code}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failure(why) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {why}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": why}]},
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_the_exit_code_in_the_causes() {
        let text = Outcome::of(3).render(true).expect("status");
        let status: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(Outcome::of(0).render(false), None);
        assert_eq!(Outcome::of(0).render(true).expect("status"), r#"{"metadata":{},"status":"Success"}"#);
    }
}
