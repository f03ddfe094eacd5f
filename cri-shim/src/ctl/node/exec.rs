//! `coraclectl exec`.

use std::io::Write;
use std::process::ExitCode;

use k8s_cri::v1::ExecSyncRequest;

use super::names::{Known, container_name, is_running};
use crate::ctl::Cli;
use crate::ctl::failure::Failure;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  coraclectl exec web-1 cat /etc/hostname\n\nThe exit code is that of the command."
)]
pub(in crate::ctl) struct Args {
    /// Seconds after which the command is ended; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
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
    let request = ExecSyncRequest {
        container_id: container.id.clone(),
        cmd: args.command.clone(),
        timeout: args.timeout.into(),
    };
    let answer = node.order(node.cri().exec_sync(request))?;
    let _ = std::io::stdout().write_all(&answer.stdout);
    let _ = std::io::stderr().write_all(&answer.stderr);
    Ok(exit_code(answer.exit_code))
}

/// Codes are a byte; what is none counts as a failure.
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}
