//! `coracle-monitor --directory DIR --runtime BINARY`: one a pod, started by the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use coracle_monitor::pod_init;
use coracle_monitor::server::{Config, Server};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("coracle-monitor: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|verb| verb == pod_init::VERB) {
        return pod_init::main();
    }
    let config = parse(args.into_iter())?;
    // Not the daemon's child, in a session of its own: neither its end nor a signal to its group reaches the pod.
    if coracle_runtime::sys::worker::continue_in_background()? {
        return Ok(());
    }
    let _ = rustix::process::setsid();
    // Not before the containers, whose loss it would be; ignored where it may not be lowered (no CAP_SYS_RESOURCE).
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    let mut server = Server::bind(config)?;
    announce()?;
    server.run()
}

fn parse(mut args: impl Iterator<Item = String>) -> std::io::Result<Config> {
    let usage = || std::io::Error::other("usage: coracle-monitor --directory DIR --runtime BINARY");
    let (mut directory, mut runtime) = (None, None);
    while let Some(flag) = args.next() {
        let value = args.next().map(PathBuf::from).ok_or_else(usage)?;
        match flag.as_str() {
            "--directory" => directory = Some(value),
            "--runtime" => runtime = Some(value),
            _ => return Err(usage()),
        }
    }
    Ok(Config { directory: directory.ok_or_else(usage)?, runtime: runtime.ok_or_else(usage)? })
}

/// Tells the daemon that the socket is bound, and lets go of its pipe.
fn announce() -> std::io::Result<()> {
    rustix::io::write(rustix::stdio::stdout(), b"+")?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}
