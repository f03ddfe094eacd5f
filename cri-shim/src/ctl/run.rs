//! `coraclectl run`: a container in the foreground, from an image to its exit code.
//!
//! ```text
//! <root>/containers/<id>/lock            flock of the command that runs it: unlocked means left behind
//!                       /upper, work     what the container writes; goes with it
//!                       /bundle          config.json, and rootfs: the mount point, in a mount namespace of our own
//! ```
//!
//! The mounts exist only in this process's private mount namespace, which `coracle` inherits: they go with the last
//! process in it, however it ends. What a killed command left, a container that still runs included, `coraclectl gc`
//! ends and removes.

use std::fs::{self, File};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use clap::ValueEnum;
use coracle_image_store::bundle::{self, ProcessOptions, SpecOptions};
use coracle_image_store::store::{Image, Lease, file};
use coracle_image_store::{Reference, Store};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::{Cli, pull};

/// Docker's code for "the container could not be run".
const NOT_RUN: u8 = 125;
const CONTAINERS: &str = "containers";

#[derive(clap::Args)]
#[command(
    after_help = "The image is pulled when it is not there. The container is always removed in the end."
)]
pub(super) struct Args {
    /// Name, id, or the beginning of an id
    image: String,

    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    args: Vec<String>,

    /// Set a variable; NAME alone hands on that of this environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// Show a file or directory of the host in the container
    #[arg(long, value_name = "SOURCE:TARGET[:ro]")]
    volume: Vec<String>,

    /// Run as USER[:GROUP], by name or number
    #[arg(short, long)]
    user: Option<String>,

    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Program instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,

    /// Terminal: `auto` gives one when standard input and output are terminals
    #[arg(long, value_enum, default_value = "auto")]
    tty: Tty,

    /// Network: none, or the host's
    #[arg(long, value_enum, default_value = "none")]
    net: Net,

    /// The root file system cannot be written
    #[arg(long)]
    read_only: bool,

    /// When to pull
    #[arg(long, value_enum, default_value = "missing")]
    pull: Pull,

    /// Accepted for habit's sake: the container is always removed
    #[arg(long, hide = true)]
    rm: bool,

    #[command(flatten)]
    access: pull::Access,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Tty {
    Auto,
    Yes,
    No,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Net {
    None,
    Host,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Pull {
    Missing,
    Always,
    Never,
}

/// The directory of a container, held while it runs and removed in the end.
struct Place {
    id: String,
    directory: PathBuf,
    _lock: File,
    _lease: Lease,
}

pub(super) fn run(cli: &Cli, args: &Args) -> ExitCode {
    attempt(cli, args).unwrap_or_else(|failure| {
        failure.during("run").print();
        ExitCode::from(NOT_RUN)
    })
}

fn attempt(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let coracle = find_coracle()?;
    let store = cli.store()?;
    let image = find_image(&store, args)?;
    let place = Place::make(&store, &image)?;
    private_mounts()?;
    let rootfs = place.bundle().join("rootfs");
    let directory = |name: &str| place.directory.join(name);
    let mounted =
        bundle::mount_writable(&store, &image.record, &directory("upper"), &directory("work"), true)?;
    mounted.attach(&rootfs)?;
    let config = store.config(&image.record.id)?;
    let process = bundle::process(&config, &rootfs, &process_options(args))?;
    bundle::write_config(&place.bundle(), &bundle::spec(&process, &spec_options(args, &place.id)?))?;
    drop(mounted);
    let code = supervise(&coracle, &place);
    let _ = coracle_image_store::mount::detach(&rootfs);
    place.remove()?;
    code
}

fn find_coracle() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("coracle")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("coracle"));
    beside
        .into_iter()
        .chain(on_path)
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Failure::usage("the runtime `coracle` is neither beside coraclectl nor on the PATH"))
}

fn find_image(store: &Store, args: &Args) -> Result<Image, Failure> {
    if args.pull != Pull::Always {
        match store.image(&args.image).map_err(Failure::from) {
            Ok(image) => return Ok(image),
            Err(failure) if failure.is_not_found() && args.pull == Pull::Missing => {}
            Err(failure) => return Err(failure),
        }
    }
    let reference: Reference = args.image.parse()?;
    let pulled = pull::pull(store, &reference, &args.access, false)?;
    Ok(store.image(&pulled.id.to_string())?)
}

fn process_options(args: &Args) -> ProcessOptions {
    let inherited = |name: &String| match name.contains('=') {
        true => Some(name.clone()),
        false => std::env::var(name).ok().map(|value| format!("{name}={value}")),
    };
    let terminal = match args.tty {
        Tty::Yes => true,
        Tty::No => false,
        Tty::Auto => std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
    };
    ProcessOptions {
        args: args.args.clone(),
        entrypoint: args.entrypoint.as_ref().map(|program| vec![program.clone()]),
        env: args.env.iter().filter_map(inherited).collect(),
        user: args.user.clone(),
        cwd: args.workdir.clone(),
        terminal,
    }
}

fn spec_options(args: &Args, id: &str) -> Result<SpecOptions, Failure> {
    let bind = |text: &String| {
        let mut parts = text.split(':');
        let (source, target, flag) = (parts.next(), parts.next(), parts.next());
        let wrong =
            || Failure::usage(format!("--volume {text:?}: expected SOURCE:TARGET or SOURCE:TARGET:ro"));
        let (Some(source), Some(target)) = (source, target) else { return Err(wrong()) };
        if parts.next().is_some() || !target.starts_with('/') || !matches!(flag, None | Some("ro" | "rw")) {
            return Err(wrong());
        }
        let source =
            fs::canonicalize(source).map_err(|error| Failure::io(&format!("--volume {source}"), &error))?;
        Ok((source.to_string_lossy().into_owned(), target.to_owned(), flag == Some("ro")))
    };
    Ok(SpecOptions {
        hostname: id.chars().take(12).collect(),
        host_network: args.net == Net::Host,
        read_only: args.read_only,
        binds: args.volume.iter().map(bind).collect::<Result<_, _>>()?,
        seccomp: Some(crate::oci::seccomp::runtime_default(
            &k8s_cri::v1::LinuxContainerSecurityContext::default(),
        )),
    })
}

// Mounts of the host still arrive, none of ours leaves.
fn private_mounts() -> Result<(), Failure> {
    use rustix::mount::{MountPropagationFlags as Propagation, mount_change};
    let failed = |what: &str, error: std::io::Error| {
        Failure::io(what, &error).with_hint("running containers needs root")
    };
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|errno| failed("make a mount namespace", errno.into()))?;
    mount_change("/", Propagation::DOWNSTREAM | Propagation::REC)
        .map_err(|errno| failed("make mounts private", errno.into()))
}

fn supervise(coracle: &Path, place: &Place) -> Result<ExitCode, Failure> {
    // One thread: only the thread that made the mount namespace is in it, and the child must come from there.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the event loop", &error))?;
    let status = runtime.block_on(wait(coracle, place));
    let _ = delete_by_force(coracle, &place.id);
    status.map_err(|error| Failure::io(&format!("run {}", coracle.display()), &error))
}

/// Ends a container, if it is there; an error only where it could not be ended.
fn delete_by_force(coracle: &Path, id: &str) -> std::io::Result<()> {
    let output = std::process::Command::new(coracle)
        .args(["delete", "--force", id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let told: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
    Err(std::io::Error::other(told))
}

async fn wait(coracle: &Path, place: &Place) -> std::io::Result<ExitCode> {
    // The terminal's ^C reaches the runtime by itself; what is sent to this process alone is handed on.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child = tokio::process::Command::new(coracle)
        .arg("run")
        .arg("--bundle")
        .arg(place.bundle())
        .arg(&place.id)
        .spawn()?;
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    loop {
        let hand_on = tokio::select! {
            status = child.wait() => return Ok(exit_code(status?)),
            _ = interrupt.recv() => (!std::io::stdin().is_terminal()).then_some(rustix::process::Signal::INT),
            _ = terminate.recv() => Some(rustix::process::Signal::TERM),
            _ = hangup.recv() => Some(rustix::process::Signal::HUP),
        };
        if let (Some(pid), Some(signal)) = (pid, hand_on) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(NOT_RUN))
}

impl Place {
    fn make(store: &Store, image: &Image) -> Result<Self, Failure> {
        let layers: Vec<_> = image.record.layers.iter().map(|layer| layer.diff_id).collect();
        let lease = store.lease(&[image.record.id, image.record.manifest], &layers)?;
        let _guard = store.share()?;
        let id = format!("run-{:x}-{:x}", std::process::id(), nanoseconds());
        let directory = store.root().join(CONTAINERS).join(&id);
        let io = |error: std::io::Error| Failure::io(&format!("create {}", directory.display()), &error);
        file::create_dirs(&directory).map_err(io)?;
        let lock = file::open_lock(&directory.join("lock")).map_err(io)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|errno| io(errno.into()))?;
        for name in ["upper", "work", "bundle/rootfs"] {
            fs::create_dir_all(directory.join(name)).map_err(io)?;
        }
        // The root directory of the container takes its mode from the uppermost layer.
        fs::set_permissions(directory.join("upper"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(io)?;
        Ok(Self { id, directory, _lock: lock, _lease: lease })
    }

    fn bundle(&self) -> PathBuf {
        self.directory.join("bundle")
    }

    fn remove(self) -> Result<(), Failure> {
        fs::remove_dir_all(&self.directory)
            .map_err(|error| Failure::io(&format!("remove {}", self.directory.display()), &error))
    }
}

fn nanoseconds() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// Ends containers whose command is gone and removes their directories; returns how many there are. A container that
/// can't be ended keeps its directory: it still writes there.
pub(super) fn sweep(store: &Store, dry_run: bool) -> Result<usize, Failure> {
    let _guard = store.exclusive()?;
    let directory = store.root().join(CONTAINERS);
    let Ok(names) = file::names(&directory) else { return Ok(0) };
    let mut found = 0;
    for name in names.iter().filter(|name| name.starts_with("run-")) {
        let path = directory.join(name);
        let held = File::open(path.join("lock")).is_ok_and(|lock| {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
        });
        if held {
            continue;
        }
        found += 1;
        if !dry_run {
            delete_by_force(&find_coracle()?, name)
                .map_err(|error| Failure::io(&format!("end the container {name}"), &error))?;
            fs::remove_dir_all(&path)
                .map_err(|error| Failure::io(&format!("remove {}", path.display()), &error))?;
        }
    }
    Ok(found)
}
