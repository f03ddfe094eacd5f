//! `coraclectl rmi`.

use std::process::ExitCode;

use coracle_image_store::store::GcOptions;

use super::failure::Failure;
use super::{Cli, output};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name (only that name goes), id (all names go), or the beginning of an id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,

    /// Remove every name of the image
    #[arg(short, long)]
    all: bool,

    /// Succeed where there is no such image
    #[arg(short, long)]
    force: bool,

    /// Free the space at once, as `coraclectl gc` does
    #[arg(long)]
    gc: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let store = cli.store()?;
    let mut failed = None;
    for name in &args.images {
        match store.remove_image(name, args.all).map_err(Failure::from) {
            Ok(removed) => {
                removed.names.iter().for_each(|name| output::print_line(&format!("removed name {name}")));
                if let Some(image) = removed.image {
                    output::print_line(&format!("removed image {image}"));
                }
            }
            Err(failure) if args.force && failure.is_not_found() => {}
            Err(failure) => failed = Some(failure.report()),
        }
    }
    if args.gc {
        let report = store.gc(&GcOptions::default())?;
        output::print_line(&format!("freed {}", output::size(report.bytes)));
    }
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}
