//! `coraclectl images`.

use std::process::ExitCode;

use super::failure::Failure;
use super::{Cli, output};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print as JSON
    #[arg(long)]
    json: bool,

    /// Print ids only
    #[arg(short, long)]
    quiet: bool,

    /// Also names by digest
    #[arg(long)]
    digests: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let store = cli.store()?;
    let images = store.images()?;
    if args.json {
        let list: Vec<_> = images.iter().map(|image| super::inspect::summary(&store, image)).collect();
        output::json(&list);
        return Ok(ExitCode::SUCCESS);
    }
    if args.quiet {
        images.iter().for_each(|image| output::print_line(&image.record.id.to_string()));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for image in &images {
        let mut names = image.repo_tags();
        if args.digests || names.is_empty() {
            names.extend(image.repo_digests());
        }
        if names.is_empty() {
            names.push("<no name>".into());
        }
        let size = output::size(store.disk_bytes(&image.record));
        for name in names {
            let id = image.record.id.hex()[..12].to_owned();
            rows.push(vec![name, id, size.clone(), output::age(image.record.added)]);
        }
    }
    rows.sort();
    output::table(&["NAME", "ID", "SIZE", "ADDED"], &rows);
    Ok(ExitCode::SUCCESS)
}
