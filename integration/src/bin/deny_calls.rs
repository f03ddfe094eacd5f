//! `deny_calls ERRNO:NAME[,NAME…] PROGRAM [ARG…]`: executes the program where these system calls fail with ENOSYS or EPERM.
//!
//! So an old kernel looks, and a nested container. The filter is the runtime's own and stays on all descendants.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use coracle_runtime::seccomp::{Host, compile};
use serde_json::json;

fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("deny_calls: {error}");
    ExitCode::from(125)
}

fn run() -> Result<std::convert::Infallible, Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(what), Some(program)) = (words.next(), words.next()) else {
        return Err("usage: deny_calls ERRNO:NAME[,NAME...] PROGRAM [ARG...]".into());
    };
    let (errno, names) = what.split_once(':').ok_or("no errno")?;
    let number = match errno {
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        other => return Err(format!("errno {other}").into()),
    };
    let profile = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "flags": [],
        "syscalls": [{
            "names": names.split(',').collect::<Vec<_>>(), "action": "SCMP_ACT_ERRNO", "errnoRet": number,
        }]
    }))?;
    let filter = compile(&profile, &Host::current())?;
    if let Some(warning) = filter.warnings.first() {
        return Err(warning.clone().into());
    }
    // Loaded with privilege, not with no_new_privs, which the container would inherit.
    filter.load()?;
    Err(Command::new(program).args(words).exec().into())
}
