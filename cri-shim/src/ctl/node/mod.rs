//! What runs on the node: the verbs of `coraclectl` that ask the daemon, over the same CRI socket as the kubelet.
//!
//! Each verb is a file. All of them are synchronous: `Node` owns the small async runtime that carries the calls.

mod client;
pub(super) mod events;
pub(super) mod exec;
pub(super) mod inspect;
mod logfile;
pub(super) mod logs;
mod manifest;
mod names;
pub(super) mod pods;
pub(super) mod ps;
pub(super) mod rm;
pub(super) mod run_pod;
pub(super) mod stats;
pub(super) mod stop;
mod streams;
mod terminal;
mod timestamp;

use clap::ValueEnum;

pub(super) use client::Node;

/// How a list is printed.
#[derive(clap::Args)]
pub(super) struct Listing {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,

    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

/// The part of an id that people are shown.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// `5 minutes ago` for nanoseconds since 1970; 0 is never.
fn age(nanoseconds: i64) -> String {
    match u64::try_from(nanoseconds / 1_000_000_000) {
        Ok(0) | Err(_) => "-".to_owned(),
        Ok(seconds) => super::output::age(seconds),
    }
}
