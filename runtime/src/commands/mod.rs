//! The verbs of the command line, one file each, and what they share: the table of verbs, the context, the errors.
//!
//! Texts, exit codes and formats are runc's, because callers match them; `docs/compatibility.md` lists what differs.

mod checkpoint;
mod container;
mod context;
mod create;
mod delete;
mod environment;
mod error;
mod events;
mod exec;
mod features;
pub mod flags;
mod group;
mod help;
mod kill;
mod list;
mod notify;
mod pause;
mod ps;
mod run;
mod signal;
mod spec;
mod start;
mod state;
mod update;

pub use context::{Context, clean_path};
pub use environment::Environment;
pub use error::Error;
pub use signal::{parse_signal, signal_text};

use flags::{Flag, Parsed};

/// How many arguments a verb takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
    Any,
}

/// One verb of the command line.
#[derive(Debug)]
pub struct Verb {
    pub name: &'static str,
    pub usage: &'static str,
    /// What follows the options in the usage line.
    pub arguments: &'static str,
    pub description: &'static str,
    pub flags: &'static [Flag],
    pub arity: Arity,
    /// Flags may come after the arguments.
    pub reorders: bool,
    /// The verb runs our code inside a container, so the program must be sealed first (CVE-2019-5736).
    pub enters: bool,
    /// The exit code of a failure.
    pub failure: u8,
    pub run: fn(&Context, &Parsed) -> Result<u8, Error>,
}

/// All verbs, in the order of the help.
pub const VERBS: &[&Verb] = &[
    &checkpoint::CHECKPOINT,
    &create::VERB,
    &delete::VERB,
    &events::VERB,
    &exec::VERB,
    &kill::VERB,
    &list::VERB,
    &pause::PAUSE,
    &ps::VERB,
    &checkpoint::RESTORE,
    &pause::RESUME,
    &run::VERB,
    &spec::VERB,
    &start::VERB,
    &state::VERB,
    &update::VERB,
    &features::VERB,
];

/// What the words of the command line ask for.
#[derive(Debug)]
pub enum Invocation {
    /// Print this and succeed.
    Print(String),
    /// Print `shown` to stdout and fail with the error and this exit code; the log is where `globals` say.
    Misuse { shown: String, error: String, code: u8, globals: Parsed },
    /// Run the verb.
    Run { verb: &'static Verb, globals: Parsed, words: Parsed },
}

/// Reads the words after argv[0]; pure.
#[must_use]
pub fn interpret(program: &str, words: &[String]) -> Invocation {
    let globals = match flags::parse(context::GLOBAL_FLAGS, words) {
        Ok(globals) => globals,
        Err(error) => {
            let shown = format!("Incorrect Usage. {error}\n\n{}\n", help::app(program));
            return misuse(shown, error, Parsed::default());
        }
    };
    if globals.help {
        return Invocation::Print(help::app(program));
    }
    if globals.is_on("version") {
        return Invocation::Print(version(program));
    }
    let Some((name, rest)) = globals.args.split_first() else { return Invocation::Print(help::app(program)) };
    if matches!(name.as_str(), "help" | "h") {
        return help_of(program, rest.first().map(String::as_str));
    }
    match VERBS.iter().find(|verb| verb.name == name) {
        Some(verb) => interpret_verb(program, verb, rest, globals.clone()),
        None => help_of(program, Some(name)),
    }
}

fn interpret_verb(program: &str, verb: &'static Verb, rest: &[String], globals: Parsed) -> Invocation {
    let rest = if verb.reorders { flags::reorder(verb.flags, rest) } else { rest.to_vec() };
    match flags::parse(verb.flags, &rest) {
        Err(error) => {
            misuse(format!("Incorrect Usage: {error}\n\n{}\n", help::verb(program, verb)), error, globals)
        }
        Ok(words) if words.help => Invocation::Print(help::verb(program, verb)),
        Ok(words) => match wrong_arity(program, verb, words.args.len()) {
            Some(text) => {
                misuse(format!("Incorrect Usage.\n\n{}\n", help::verb(program, verb)), text, globals)
            }
            None => Invocation::Run { verb, globals, words },
        },
    }
}

fn wrong_arity(program: &str, verb: &Verb, given: usize) -> Option<String> {
    let (what, count) = match verb.arity {
        Arity::Exactly(n) if given != n => ("exactly", n),
        Arity::AtLeast(n) | Arity::Between(n, _) if given < n => ("a minimum of", n),
        Arity::Between(_, n) if given > n => ("a maximum of", n),
        Arity::Exactly(_) | Arity::AtLeast(_) | Arity::Between(..) | Arity::Any => return None,
    };
    Some(format!("{program}: \"{}\" requires {what} {count} argument(s)", verb.name))
}

fn help_of(program: &str, name: Option<&str>) -> Invocation {
    let Some(name) = name else { return Invocation::Print(help::app(program)) };
    match VERBS.iter().find(|verb| verb.name == name) {
        Some(verb) => Invocation::Print(help::verb(program, verb)),
        None => Invocation::Misuse {
            shown: String::new(),
            error: format!("No help topic for '{name}'"),
            code: 3,
            globals: Parsed::default(),
        },
    }
}

fn misuse(shown: String, error: impl ToString, globals: Parsed) -> Invocation {
    Invocation::Misuse { shown, error: error.to_string(), code: 1, globals }
}

/// What `--version` prints: the lines that Docker and podman parse.
fn version(program: &str) -> String {
    let _ = program;
    format!("coracle version {}\nspec: {}\n", env!("CARGO_PKG_VERSION"), crate::state::SPEC_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match interpret("runc", &words) {
            Invocation::Print(text) => format!("print {}", text.lines().next().unwrap_or_default()),
            Invocation::Misuse { error, code, .. } => format!("misuse {code} {error}"),
            Invocation::Run { verb, globals, words } => {
                format!("{} {} {:?}", verb.name, globals.text("root").unwrap_or("-"), words.args)
            }
        }
    }

    #[test]
    fn command_lines() {
        for (line, want) in [
            ("", "print NAME:"),
            ("--help", "print NAME:"),
            ("-v", "print coracle version 0.1.0"),
            ("help kill", "print NAME:"),
            ("--root /r state c1", "state /r [\"c1\"]"),
            ("--root=/r -debug state c1", "state /r [\"c1\"]"),
            ("state", "misuse 1 runc: \"state\" requires exactly 1 argument(s)"),
            ("kill", "misuse 1 runc: \"kill\" requires a minimum of 1 argument(s)"),
            ("kill a b c", "misuse 1 runc: \"kill\" requires a maximum of 2 argument(s)"),
            ("bogus", "misuse 3 No help topic for 'bogus'"),
            ("--bogus", "misuse 1 flag provided but not defined: -bogus"),
            ("exec c1 ls --all", "exec - [\"c1\", \"ls\", \"--all\"]"),
            ("ps c1 -ef", "ps - [\"c1\", \"-ef\"]"),
        ] {
            assert_eq!(show(line), want, "{line}");
        }
    }

    #[test]
    fn no_flag_name_is_taken_twice() {
        for verb in VERBS {
            let mut names: Vec<_> = verb.flags.iter().flat_map(|flag| flag.names).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "{}", verb.name);
        }
    }
}
