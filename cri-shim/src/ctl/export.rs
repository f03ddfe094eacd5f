//! `coraclectl export`.

use std::fs::{self, File};
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coracle_image_store::export::{Exported, export};

use super::failure::Failure;
use super::{Cli, output, progress};

#[derive(clap::Args)]
#[command(
    after_help = "The file is an OCI layout and a `docker save` archive at once: docker load, podman load, skopeo, \
ctr images import and coraclectl import take it. The image keeps its id; its layers are written uncompressed, so its \
manifest is a new one."
)]
pub(super) struct Args {
    /// Name, id, or the beginning of an id
    image: String,

    /// The file to write; `-` for standard output
    #[arg(value_name = "FILE")]
    path: PathBuf,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let store = cli.store()?;
    let to_stdout = args.path == Path::new("-");
    let progress = progress::bars(args.quiet);
    let attempt = |out: &mut dyn Write| {
        let mut out = BufWriter::with_capacity(256 << 10, out);
        export(&store, &args.image, &mut out, &progress)
            .map_err(|error| Failure::from(error).during(&format!("export {}", args.image)))
    };
    if to_stdout {
        if std::io::stdout().is_terminal() {
            return Err(Failure::usage("an archive on a terminal: give a FILE, or redirect the output"));
        }
        attempt(&mut std::io::stdout().lock())?;
    } else {
        let exported = to_file(&args.path, attempt)?;
        if !args.quiet {
            output::print_line(&format!("{} {}", exported.id, exported.names.join(" ")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes beside the file and renames: what was there stays until the new one is whole.
fn to_file(
    path: &Path,
    attempt: impl FnOnce(&mut dyn Write) -> Result<Exported, Failure>,
) -> Result<Exported, Failure> {
    let io = |error: std::io::Error| Failure::io(&format!("write {}", path.display()), &error);
    let name = path.file_name().ok_or_else(|| Failure::usage("FILE is a directory"))?;
    let beside = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mut file = File::create_new(&beside).map_err(io)?;
    let outcome = attempt(&mut file).and_then(|exported| {
        file.sync_all().and_then(|()| fs::rename(&beside, path)).map_err(io)?;
        Ok(exported)
    });
    if outcome.is_err() {
        let _ = fs::remove_file(&beside);
    }
    outcome
}
