//! `coraclectl import`.

use std::path::PathBuf;
use std::process::ExitCode;

use coracle_image_store::import::{ImportOptions, import};
use coracle_image_store::manifest::Platform;

use super::failure::Failure;
use super::{Cli, output, progress};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A file of `docker save`, an OCI layout as tar or directory, plain or compressed; `-` for standard input
    #[arg(value_name = "FILE")]
    path: PathBuf,

    /// Name for the image, instead of the one in the archive
    #[arg(short, long)]
    name: Option<String>,

    /// Another platform than this machine's, as linux/arm64
    #[arg(long, value_name = "OS/ARCH", value_parser = super::platform)]
    platform: Option<Platform>,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let store = cli.store()?;
    let options = ImportOptions {
        name: args.name.as_deref().map(str::parse).transpose()?,
        platform: args.platform.clone(),
        progress: progress::bars(args.quiet),
    };
    let imported = import(&store, &args.path, &options)
        .map_err(|error| Failure::from(error).during(&format!("import {}", args.path.display())))?;
    for image in imported.iter().filter(|_| !args.quiet) {
        let names =
            if image.names.is_empty() { "(no name, use --name)".to_owned() } else { image.names.join(" ") };
        output::print_line(&format!("{} {names}", image.id));
    }
    Ok(ExitCode::SUCCESS)
}
