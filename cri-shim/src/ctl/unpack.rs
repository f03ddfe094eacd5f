//! `coraclectl unpack`.

use std::path::PathBuf;
use std::process::ExitCode;

use coracle_image_store::bundle::{self, ProcessOptions};

use super::Cli;
use super::failure::Failure;

#[derive(clap::Args)]
#[command(after_help = "Then, for example: coracle run --bundle DIR my-container")]
pub(super) struct Args {
    /// Name, id, or the beginning of an id
    image: String,

    /// Directory to make; must not exist or be empty
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let store = cli.store()?;
    let image = store.image(&args.image)?;
    let options = ProcessOptions { args: args.args.clone(), ..ProcessOptions::default() };
    bundle::unpack(&store, &image, &args.directory, &options)
        .map_err(|error| Failure::from(error).during(&format!("unpack {}", args.image)))?;
    Ok(ExitCode::SUCCESS)
}
