//! The command `coracle`: reads the command line, runs one verb, maps its outcome to an exit code.

use std::io::Write;
use std::process::ExitCode;

use coracle_runtime::commands::{Context, Environment, Invocation, VERBS, interpret};
use coracle_runtime::log::{Format, Log};
use coracle_runtime::sys::selfexec;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_else(|| "coracle".to_owned());
    let words: Vec<String> = words.collect();
    // Sealing executes this program once more: what comes before is done twice, so the verbs are first looked for as they stand.
    let sealed = words.iter().any(|word| VERBS.iter().any(|verb| verb.enters && verb.name == word))
        && selfexec::ensure_sealed().is_ok();
    match interpret(&program, &words) {
        Invocation::Print(text) => show(&text),
        Invocation::Misuse { shown, error, code, globals } => {
            show(&shown);
            let context = Context::new(&program, &globals, Environment::read());
            fail(context.as_ref().ok().map(|context| &context.log), &error, code)
        }
        Invocation::Run { verb, globals, words } => {
            if verb.enters
                && !sealed
                && let Err(error) = selfexec::ensure_sealed()
            {
                return fail(None, &format!("seal the runtime's binary: {error}"), verb.failure);
            }
            let context = match Context::new(&program, &globals, Environment::read()) {
                Ok(context) => context,
                Err(error) => return fail(None, &error.to_string(), 1),
            };
            match (verb.run)(&context, &words) {
                Ok(code) => ExitCode::from(code),
                Err(error) => fail(Some(&context.log), &error.to_string(), verb.failure),
            }
        }
    }
}

/// The error goes to the log, and to stderr too where the log is a file.
fn fail(log: Option<&Log>, error: &str, code: u8) -> ExitCode {
    match log {
        Some(log) => {
            log.error(error);
            if !log.is_stderr() {
                let _ = writeln!(std::io::stderr(), "{error}");
            }
        }
        None => Log::stderr(Format::Text, false).error(error),
    }
    ExitCode::from(code)
}

/// A closed stdout is the reader's business.
fn show(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
