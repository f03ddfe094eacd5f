//! `cargo xtask guest`: one command as root in a machine with systemd and cgroup v2 alone (see the crate `coracle-guest`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use coracle_guest::machine::Options;
use coracle_guest::{Backend, Request};

/// MiB: test containers are small, the test programs' page cache is not.
const MEMORY: u32 = 3072;

/// `[--backend uml|qemu] [--env NAME=VALUE]… [--] COMMAND…`, in the current directory if that is shared.
pub fn run(root: &Path, arguments: &[String]) -> Result<ExitCode, String> {
    let mut backend = Backend::default();
    let mut environment = Vec::new();
    let mut rest = arguments;
    while let [flag, value, after @ ..] = rest {
        match flag.as_str() {
            "--backend" => {
                backend =
                    Backend::named(value).ok_or_else(|| format!("unknown backend {value}: uml or qemu"))?;
            }
            "--env" => {
                let (name, value) = value.split_once('=').ok_or("--env takes NAME=VALUE")?;
                environment.push((name.into(), value.into()));
            }
            _ => break,
        }
        rest = after;
    }
    let command = if rest.first().is_some_and(|word| word == "--") { &rest[1..] } else { rest };
    if command.is_empty() {
        return Err(
            "usage: cargo xtask guest [--backend uml|qemu] [--env NAME=VALUE]… -- COMMAND…".to_owned()
        );
    }
    let command = command.iter().map(OsString::from).collect();
    let status = boot(root, backend, command, environment, Duration::from_secs(3600))?;
    Ok(ExitCode::from(status))
}

/// Runs `command` in a machine; its exit status.
pub fn boot(
    root: &Path,
    backend: Backend,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    deadline: Duration,
) -> Result<u8, String> {
    let shares = shares(root)?;
    let here = std::env::current_dir().unwrap_or_else(|_| root.to_owned());
    let directory = if shares.iter().any(|share| here.starts_with(share)) { here } else { root.to_owned() };
    let request = Request { command, directory, shares, environment };
    // By descriptor: a build may have replaced the file since.
    let agent = PathBuf::from("/proc/self/exe");
    let options = Options { backend, memory: MEMORY, deadline, agent };
    coracle_guest::run(&request, &options).map_err(|error| error.chain())
}

/// The working tree, and the target directory where it lies elsewhere.
fn shares(root: &Path) -> Result<Vec<PathBuf>, String> {
    let target = crate::build::target_dir(root)?;
    let mut shares = vec![root.to_owned()];
    if !target.starts_with(root) {
        shares.push(target);
    }
    Ok(shares)
}
