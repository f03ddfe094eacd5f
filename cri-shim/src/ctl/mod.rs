//! `coraclectl`: one verb a file. Parses, dispatches, and turns what failed into a text, a hint and an exit code.
//!
//! What concerns images works without a daemon: locks in the store keep commands and a running daemon apart. What
//! concerns pods (`node`) asks the daemon over its socket.

mod export;
mod failure;
mod fsck;
mod gc;
mod images;
mod import;
mod inspect;
mod node;
mod output;
mod progress;
mod pull;
mod rmi;
mod run;
mod unpack;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coracle_image_store::layer::Choice;
use coracle_image_store::manifest::Platform;
use coracle_image_store::{Store, store};

use failure::Failure;

/// Look at what runs on this node, and manage its images.
///
/// Pods, with a running coracled:
///   coraclectl pods                               pods, their state and addresses
///   coraclectl ps -a                              containers, also those that ended
///   coraclectl logs -f POD                        what a container writes
///   coraclectl exec POD CMD                       run a command in it
///   coraclectl run-pod pod.yaml                   start a Kubernetes Pod manifest without Kubernetes
///   coraclectl rm -f POD                          end and remove it
///
/// Images, with or without coracled:
///   coraclectl pull docker.io/library/busybox     fetch an image
///   coraclectl run busybox echo hello             run a command in it
///   coraclectl images                             list what is there
///   coraclectl rmi busybox && coraclectl gc       remove it and free the space
#[derive(Parser)]
#[command(name = "coraclectl", version, verbatim_doc_comment, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 access denied, 5 registry or \
daemon unavailable, 6 damaged, 7 disk full or another limit met. `run` and `exec` give the exit code of the command that they ran; `run` \
125 where it could not run it."
)]
struct Cli {
    /// Directory of images and layers
    #[arg(long, global = true, value_name = "DIR", default_value = store::DEFAULT_ROOT, env = "CORACLE_ROOT")]
    root: PathBuf,

    /// The daemon's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/coracle/coracled.sock",
        env = "CORACLE_SOCKET"
    )]
    socket: PathBuf,

    /// Say more (-v, -vv): what is tried again and why, which mirror was passed over
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List pods
    Pods(node::pods::Args),
    /// List containers
    Ps(node::ps::Args),
    /// Print what a container wrote
    Logs(node::logs::Args),
    /// Run a command in a container
    Exec(node::exec::Args),
    /// Start a pod from a Kubernetes Pod manifest
    RunPod(node::run_pod::Args),
    /// Stop pods or containers
    Stop(node::stop::Args),
    /// Remove pods or containers
    Rm(node::rm::Args),
    /// Show what happens to containers, as it happens
    Events(node::events::Args),
    /// Show what containers use of processor, memory and disk
    Stats(node::stats::Args),
    /// Fetch an image from a registry
    Pull(pull::Args),
    /// List the images in the store
    #[command(visible_alias = "ls")]
    Images(images::Args),
    /// Show everything known about pods, containers or images, as JSON
    Inspect(inspect::Args),
    /// Remove names of images; an image goes with its last name
    Rmi(rmi::Args),
    /// Take images from a file made by `docker save`, or from an OCI layout
    Import(import::Args),
    /// Write an image to a file that docker, podman, skopeo and containerd read
    Export(export::Args),
    /// Make an OCI bundle of an image: config.json and a root file system, for coracle or runc
    Unpack(unpack::Args),
    /// Run a command in a new container, in the foreground; the container is removed afterwards
    Run(run::Args),
    /// Free the space of what no image, container or pull needs
    Gc(gc::Args),
    /// Check every blob, layer and record of the store
    Fsck(fsck::Args),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    output::log(cli.verbose);
    let result = match &cli.verb {
        Verb::Pods(args) => node::pods::run(&cli, args),
        Verb::Ps(args) => node::ps::run(&cli, args),
        Verb::Logs(args) => node::logs::run(&cli, args),
        Verb::Exec(args) => node::exec::run(&cli, args),
        Verb::RunPod(args) => node::run_pod::run(&cli, args),
        Verb::Stop(args) => node::stop::run(&cli, args),
        Verb::Rm(args) => node::rm::run(&cli, args),
        Verb::Events(args) => node::events::run(&cli, args),
        Verb::Stats(args) => node::stats::run(&cli, args),
        Verb::Pull(args) => pull::run(&cli, args),
        Verb::Images(args) => images::run(&cli, args),
        Verb::Inspect(args) => inspect::run(&cli, args),
        Verb::Rmi(args) => rmi::run(&cli, args),
        Verb::Import(args) => import::run(&cli, args),
        Verb::Export(args) => export::run(&cli, args),
        Verb::Unpack(args) => unpack::run(&cli, args),
        Verb::Run(args) => return run::run(&cli, args),
        Verb::Gc(args) => gc::run(&cli, args),
        Verb::Fsck(args) => fsck::run(&cli, args),
    };
    result.unwrap_or_else(|failure| failure.report())
}

impl Cli {
    fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.root, Choice::default())?)
    }

    fn node(&self) -> Result<node::Node, Failure> {
        node::Node::connect(&self.socket)
    }
}

fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text)
        .ok_or_else(|| "expected os/architecture or os/architecture/variant, as linux/arm64".into())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start threads", &error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
