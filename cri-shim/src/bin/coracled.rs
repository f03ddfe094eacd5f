//! `coracled [--config FILE] [--root DIR] [--state DIR] [--socket PATH]`: the CRI service.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use coracle_cri::config::{Config, NetworkKind};
use coracle_cri::service;
use tokio::signal::unix::{SignalKind, signal};

/// The container runtime of a node: CRI v1 over a unix socket.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// TOML file with the keys root, state and socket
    #[arg(long)]
    config: Option<PathBuf>,
    /// Images and records that outlive a boot [default: /var/lib/coracle]
    #[arg(long)]
    root: Option<PathBuf>,
    /// Sockets and what belongs to this boot [default: /run/coracle]
    #[arg(long)]
    state: Option<PathBuf>,
    /// The gRPC socket [default: /run/coracle/coracled.sock]
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Who connects pods [default: cni]
    #[arg(long, value_enum)]
    network: Option<NetworkKind>,
}

fn main() -> ExitCode {
    // Whoever starts the daemon may hold signals back; neither it nor the monitors shall inherit that.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("coracled: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = flags.config.as_deref().map(Config::load).transpose()?.unwrap_or_default();
    config.root = flags.root.unwrap_or(config.root);
    config.state = flags.state.unwrap_or(config.state);
    config.socket = flags.socket.unwrap_or(config.socket);
    config.network = flags.network.unwrap_or(config.network);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        };
        Ok(service::serve(config, stop).await?)
    })
}
