//! `coraclectl`: one verb a file. Parses, dispatches, and turns what failed into a text, a hint and an exit code.
//!
//! Works without a daemon: locks in the store keep commands and a running daemon apart.

mod failure;
mod fsck;
mod gc;
mod images;
mod import;
mod inspect;
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

/// Manage Coracle's images and run containers from them.
///
/// A first look around:
///   coraclectl pull docker.io/library/busybox     fetch an image
///   coraclectl run busybox echo hello             run a command in it
///   coraclectl images                             list what is there
///   coraclectl rmi busybox && coraclectl gc       remove it and free the space
#[derive(Parser)]
#[command(name = "coraclectl", version, verbatim_doc_comment, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 access denied, 5 registry \
unavailable, 6 damaged, 7 disk full or another limit met. `run` gives the exit code of the command that it ran, or 125 \
where it could not run it."
)]
struct Cli {
    /// Directory of images and layers
    #[arg(long, global = true, value_name = "DIR", default_value = store::DEFAULT_ROOT, env = "CORACLE_ROOT")]
    root: PathBuf,

    /// Say more (-v, -vv): what is tried again and why, which mirror was passed over
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch an image from a registry
    Pull(pull::Args),
    /// List the images in the store
    #[command(visible_alias = "ls")]
    Images(images::Args),
    /// Show everything known about an image, as JSON
    Inspect(inspect::Args),
    /// Remove names of images; an image goes with its last name
    Rmi(rmi::Args),
    /// Take images from a file made by `docker save`, or from an OCI layout
    Import(import::Args),
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
        Verb::Pull(args) => pull::run(&cli, args),
        Verb::Images(args) => images::run(&cli, args),
        Verb::Inspect(args) => inspect::run(&cli, args),
        Verb::Rmi(args) => rmi::run(&cli, args),
        Verb::Import(args) => import::run(&cli, args),
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
