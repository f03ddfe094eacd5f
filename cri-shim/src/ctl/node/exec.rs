//! `coraclectl exec`: a command's collected output by one call, or its streams over a WebSocket.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use k8s_cri::v1::{ExecRequest, ExecSyncRequest};

use super::names::{Known, container_name, is_running};
use super::terminal::RawMode;
use super::{Node, streams};
use crate::ctl::Cli;
use crate::ctl::failure::Failure;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  coraclectl exec web-1 cat /etc/hostname\n  coraclectl exec -it web-1 sh\n  \
echo hello | coraclectl exec -i web-1 wc -c\n\nThe exit code is that of the command."
)]
pub(in crate::ctl) struct Args {
    /// Hand on standard input
    #[arg(short, long)]
    interactive: bool,

    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,

    /// Seconds after which the command is ended; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0, conflicts_with_all = ["interactive", "tty"])]
    timeout: u32,

    /// Container: its name, pod/container, or the beginning of its id; a pod of one container will do
    name: String,

    /// Command and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node()?;
    let known = Known::load(&node)?;
    let container = known.container(&args.name)?;
    if !is_running(container) {
        let text = format!("container {} does not run", container_name(container));
        return Err(Failure::usage(text).with_hint("`coraclectl ps -a` shows why"));
    }
    let code = match args.interactive || args.tty {
        true => streamed(&node, args, &container.id)?,
        false => collected(&node, args, &container.id)?,
    };
    // Codes are a byte; what is none counts as a failure.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
}

fn collected(node: &Node, args: &Args, container: &str) -> Result<i32, Failure> {
    let request = ExecSyncRequest {
        container_id: container.to_owned(),
        cmd: args.command.clone(),
        timeout: args.timeout.into(),
    };
    let answer = node.order(node.cri().exec_sync(request))?;
    let _ = std::io::stdout().write_all(&answer.stdout);
    let _ = std::io::stderr().write_all(&answer.stderr);
    Ok(answer.exit_code)
}

fn streamed(node: &Node, args: &Args, container: &str) -> Result<i32, Failure> {
    let request = ExecRequest {
        container_id: container.to_owned(),
        cmd: args.command.clone(),
        tty: args.tty,
        stdin: args.interactive,
        stdout: true,
        // A terminal has one output.
        stderr: !args.tty,
    };
    let url = node.order(node.cri().exec(request))?.url;
    let terminal = args.tty && std::io::stdout().is_terminal();
    // Keys go to the command as they are, and the terminal is given back whatever happens.
    let _raw = (args.interactive && terminal).then(RawMode::enter).flatten();
    node.wait(streams::carry(&url, args.interactive, terminal))
}
