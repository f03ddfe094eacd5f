//! `coraclectl gc`.

use std::process::ExitCode;
use std::time::Duration;

use coracle_image_store::store::GcOptions;

use super::failure::Failure;
use super::{Cli, output, run};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only show what would go
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Also images without a name
    #[arg(long)]
    unnamed: bool,

    /// Also partial downloads of the last day, which a repeated pull would continue
    #[arg(long)]
    partial: bool,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let store = cli.store()?;
    let mut options = GcOptions { dry_run: args.dry_run, unnamed: args.unnamed, ..GcOptions::default() };
    if args.partial {
        options.partial_age = Duration::ZERO;
    }
    // Containers first: one whose command was killed may still run on layers that nothing else holds.
    let leftovers = run::sweep(&store, args.dry_run)?;
    let mut report = store.gc(&options)?;
    report.leftovers += leftovers;
    if args.json {
        output::json(&report);
        return Ok(ExitCode::SUCCESS);
    }
    report.problems.iter().for_each(|problem| eprintln!("coraclectl: passed over: {problem}"));
    let word = if args.dry_run { "would free" } else { "freed" };
    output::print_line(&format!(
        "{word} {}: {} images, {} layers, {} manifests and configurations, {} partial downloads, {} leftovers",
        output::size(report.bytes),
        report.images.len(),
        report.layers.len(),
        report.blobs.len(),
        report.partial_downloads,
        report.leftovers
    ));
    Ok(ExitCode::SUCCESS)
}
