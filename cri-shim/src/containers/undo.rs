//! Named steps that take back what was done, run from the last to the first: all of them, whatever fails.

use super::error::Error;

type Step = Box<dyn FnOnce() -> Result<(), Error> + Send>;

#[derive(Default)]
pub(super) struct Undo {
    steps: Vec<(&'static str, Step)>,
}

impl Undo {
    pub(super) fn push(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) {
        self.steps.push((name, Box::new(step)));
    }

    /// Runs every step; the texts of those that failed.
    pub(super) fn run(self) -> Vec<String> {
        let failed = |(name, step): (&'static str, Step)| step().err().map(|e| format!("{name}: {e}"));
        self.steps.into_iter().rev().filter_map(failed).collect()
    }

    /// The error, with what the undoing met.
    pub(super) fn after(self, first: Error) -> Error {
        let left = self.run();
        if left.is_empty() { first } else { Error::Undone { first: Box::new(first), left: left.join("; ") } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn every_step_runs_from_the_last_to_the_first() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::default();
        for (name, fails) in [("a", false), ("b", true), ("c", false)] {
            let order = Arc::clone(&order);
            undo.push(name, move || {
                order.lock().unwrap().push(name);
                if fails { Err(Error::Panicked("no".into())) } else { Ok(()) }
            });
        }
        let error = undo.after(Error::Panicked("first".into())).to_string();
        assert_eq!(*order.lock().unwrap(), ["c", "b", "a"]);
        assert_eq!(error, "first; undoing it left something behind: b: no");
    }
}
