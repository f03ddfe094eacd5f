//! `coraclectl fsck`.

use std::process::ExitCode;

use coracle_image_store::store::FsckOptions;

use super::failure::{DAMAGED, Failure};
use super::{Cli, output};

#[derive(clap::Args)]
#[command(after_help = "Exit code 0: the store is whole, or was repaired. 6: something is damaged.")]
pub(super) struct Args {
    /// Drop what is damaged, and say what to pull again; what is whole stays
    #[arg(long)]
    repair: bool,

    /// Do not read the layers, only look whether they are there
    #[arg(long)]
    quick: bool,

    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let report = cli.store()?.fsck(FsckOptions { repair: args.repair, quick: args.quick })?;
    let code = if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) };
    if args.json {
        output::json(&report);
        return Ok(code);
    }
    for finding in &report.findings {
        let done = if finding.repaired { " (removed)" } else { "" };
        output::print_line(&format!("{} {}: {}{done}", finding.object, finding.name, finding.problem));
    }
    report.pull_again.iter().for_each(|name| output::print_line(&format!("pull again: {name}")));
    output::print_line(&format!(
        "{} images, {} layers, {} blobs checked: {} problems{}",
        report.images,
        report.layers,
        report.blobs,
        report.findings.len(),
        if report.leftovers > 0 { format!(", {} leftovers for gc", report.leftovers) } else { String::new() }
    ));
    if !report.is_clean() {
        output::print_line("`coraclectl fsck --repair` removes what is damaged");
    }
    Ok(code)
}
