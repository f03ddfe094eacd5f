//! `coraclectl pull`.

use std::path::PathBuf;
use std::process::ExitCode;

use coracle_image_store::manifest::Platform;
use coracle_image_store::{Credentials, PullOptions, Pulled, Puller, Reference, Store, registry};

use super::failure::Failure;
use super::{Cli, output, progress};

#[derive(clap::Args)]
#[command(
    after_help = "Credentials are found where `docker login` and `skopeo login` leave them, credential helpers \
included. Mirrors are read from hosts.toml (/etc/coracle/certs.d, /etc/containerd/certs.d) and registries.conf. \
A pull that was interrupted goes on where it stopped when it is repeated."
)]
pub(super) struct Args {
    /// Image: nginx, quay.io/team/app:v1, localhost:5000/app@sha256:…
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,

    #[command(flatten)]
    access: Access,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// How registries are reached.
#[derive(clap::Args, Default, Clone)]
pub(super) struct Access {
    /// Another platform than this machine's, as linux/arm64
    #[arg(long, value_name = "OS/ARCH", value_parser = super::platform)]
    platform: Option<Platform>,

    /// Log in with these instead of the stored credentials
    #[arg(long, value_name = "USER:PASSWORD", env = "CORACLE_CREDENTIALS", hide_env_values = true)]
    creds: Option<String>,

    /// Reach this registry over plain HTTP (loopback addresses are without asking)
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,

    /// Read credentials from this file instead of the usual ones
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// Read hosts.toml files below this directory instead of the usual ones
    #[arg(long, value_name = "DIR")]
    hosts_dir: Option<PathBuf>,

    /// Give up when nothing has come for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 45)]
    stall_timeout: u64,

    /// Layers to fetch at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    parallel: usize,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let references = args.images.iter().map(|image| image.parse()).collect::<Result<Vec<Reference>, _>>()?;
    let store = cli.store()?;
    let mut results = Vec::new();
    for reference in &references {
        let pulled = pull(&store, reference, &args.access, args.quiet || args.json)?;
        if args.json {
            results.push(serde_json::json!({"name": reference.to_string(), "id": pulled.id, "digest": pulled.digest, "repoDigest": pulled.repo_digest}));
        } else if !args.quiet {
            output::print_line(&pulled.repo_digest);
        }
    }
    if args.json {
        output::json(&results);
    }
    Ok(ExitCode::SUCCESS)
}

/// Pulls one image with the options of the command line.
pub(super) fn pull(
    store: &Store,
    reference: &Reference,
    access: &Access,
    quiet: bool,
) -> Result<Pulled, Failure> {
    let puller = Puller::with_config(store.clone(), access.config())?;
    let options = PullOptions {
        credentials: access.credentials()?,
        platform: access.platform.clone(),
        progress: progress::bars(quiet),
        ..PullOptions::default()
    };
    let pulled = super::runtime()?.block_on(puller.pull(reference, &options));
    pulled.map_err(|error| Failure::of(&*error).during(&format!("pull {reference}")))
}

impl Access {
    fn config(&self) -> registry::Config {
        let mut config = registry::Config::from_env();
        config.insecure.clone_from(&self.insecure);
        config.stall_timeout = std::time::Duration::from_secs(self.stall_timeout.max(1));
        config.parallel_layers = self.parallel;
        if let Some(file) = &self.authfile {
            config.login_files = vec![file.clone()];
        }
        if let Some(dir) = &self.hosts_dir {
            config.hosts_dirs = vec![dir.clone()];
        }
        config
    }

    fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        let Some(text) = &self.creds else { return Ok(None) };
        let (username, password) =
            text.split_once(':').ok_or_else(|| Failure::usage("--creds: expected USER:PASSWORD"))?;
        let credentials = Credentials {
            username: username.to_owned(),
            password: password.to_owned(),
            ..Credentials::default()
        };
        Ok(Some(credentials))
    }
}
