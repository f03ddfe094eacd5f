//! `coracle-bench-pull [DIR…]`: pulls of one image from one registry by `coraclectl`, podman, containerd and skopeo, in
//! turns, with their stores on an ext4 of their own (a file on a loop device, where root is had), and in temporary
//! directories below each DIR (else the temporary directory's, and `/dev/shm` for tmpfs).
//!
//! Each sample runs in a process of its own, so that processor time, peak memory and blocks written are those of this
//! sample's processes. containerd runs privately and is measured from the request on; its start-up does not count.
//! skopeo only copies the blobs to a directory and unpacks nothing: it is the floor of the transfer.
//!
//! Write amplification is what reached the loop device (`/sys/block/loopN/stat`), journal and metadata included, from
//! the pull's begin to the end of a `syncfs` after it, per byte of the unpacked layers. The wall time ends with the pull.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

mod loop_device;

use coracle_integration::images::{self, Registry};
use loop_device::Ext4;
use nix::sys::resource::{UsageWho, getrusage};

const ROUNDS: usize = 5;
const CANDIDATES: [&str; 4] = ["coraclectl", "podman", "containerd", "skopeo"];
/// Directories that make the layers: many small files, and some large ones.
const LAYERS: [(&str, &str); 3] =
    [("python", "/usr/lib/python3"), ("perl", "/usr/share/perl"), ("git", "/usr/lib/git-core")];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--one", candidate, image, directory] => one(candidate, image, Path::new(directory)),
        _ => compare(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle-bench-pull: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Wall ms, processor ms, peak memory in MB, MB written by the processes, MB that reached the device.
type Sample = [f64; 5];

fn compare(arguments: &[String]) -> io::Result<()> {
    let directories = match arguments {
        [] => vec![std::env::temp_dir(), PathBuf::from("/dev/shm")],
        given => given.iter().map(PathBuf::from).collect(),
    };
    let work = tempfile::tempdir()?;
    let registry = Registry::start(work.path())?;
    let mut layers = vec![images::busybox_layer(work.path())?];
    for (name, path) in LAYERS.iter().filter(|(_, path)| Path::new(path).is_dir()) {
        layers.push(images::layer(work.path(), name, Path::new(path))?);
    }
    let archive = images::archive(work.path(), "bench", &layers.iter().collect::<Vec<_>>())?;
    let image = registry.push(&archive, "bench", &[])?;
    let megabytes = archive.metadata()?.len() as f64 / 1e6;
    println!(
        "Image: {} layers, {megabytes:.0} MB unpacked, gzip; {ROUNDS} rounds in turns; median (minimum).\n",
        layers.len()
    );
    println!(
        "| file system | candidate | wall ms | CPU ms | peak MB | written MB | device MB | × unpacked |\n\
        |---|---|---:|---:|---:|---:|---:|---:|"
    );
    match Ext4::make(work.path()) {
        Ok(ext4) => in_turns(&image, megabytes, "ext4 of its own", ext4.path(), Some(&ext4)),
        Err(error) => eprintln!("no ext4 on a loop device: {error}"),
    }
    for directory in &directories {
        in_turns(&image, megabytes, &file_system(directory), directory, None);
    }
    Ok(())
}

fn in_turns(image: &str, megabytes: f64, file_system: &str, directory: &Path, device: Option<&Ext4>) {
    let mut samples: [Vec<Sample>; CANDIDATES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (samples, candidate) in samples.iter_mut().zip(CANDIDATES) {
            match sample(candidate, image, directory, device) {
                Ok(sample) => samples.push(sample),
                Err(error) => eprintln!("{candidate}: {error}"),
            }
        }
    }
    for (samples, candidate) in samples.iter_mut().zip(CANDIDATES) {
        row(file_system, candidate, samples, megabytes, device.is_some());
    }
}

fn row(file_system: &str, candidate: &str, samples: &mut [Sample], megabytes: f64, has_device: bool) {
    if samples.is_empty() {
        println!("| {file_system} | {candidate} | – | – | – | – | – | – |");
        return;
    }
    let mut column = |at: usize| {
        samples.sort_by(|a, b| a[at].total_cmp(&b[at]));
        (samples[samples.len() / 2][at], samples[0][at])
    };
    let shown: Vec<String> =
        (0..5).map(&mut column).map(|(median, least)| format!("{median:.0} ({least:.0})")).collect();
    let (device, factor) = match has_device {
        true => (shown[4].clone(), format!("{:.2}", column(4).0 / megabytes)),
        false => ("–".to_owned(), "–".to_owned()),
    };
    println!("| {file_system} | {candidate} | {} | {device} | {factor} |", shown[..4].join(" | "));
}

fn sample(candidate: &str, image: &str, below: &Path, device: Option<&Ext4>) -> io::Result<Sample> {
    let directory = tempfile::tempdir_in(below)?;
    // What the last candidate left to be written must not count for this one.
    let before = device.map(Ext4::written).transpose()?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--one", candidate, image])
        .arg(directory.path())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut values: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let after = device.map(Ext4::written).transpose()?;
    values.push((after.unwrap_or(0) - before.unwrap_or(0)) as f64 / 1e6);
    values.try_into().map_err(|_| io::Error::other(format!("no sample: {text:?}")))
}

fn one(candidate: &str, image: &str, directory: &Path) -> io::Result<()> {
    let at = |name: &str| directory.join(name).into_os_string();
    let mut command = match candidate {
        "coraclectl" => Command::new(coraclectl()),
        "containerd" => Command::new("ctr"),
        other => Command::new(other),
    };
    let mut daemon = None;
    match candidate {
        "coraclectl" => drop(command.arg("--root").arg(at("root")).args(["pull", image])),
        "podman" => drop(
            command
                .arg("--root")
                .arg(at("root"))
                .arg("--runroot")
                .arg(at("run"))
                .args(["--storage-driver", "overlay"])
                .args(["pull", "--quiet", "--tls-verify=false", image]),
        ),
        "containerd" => {
            daemon = Some(Containerd::start(directory)?);
            command.arg("--address").arg(at("sock")).args(["images", "pull", "--plain-http", image]);
        }
        _ => drop(
            command
                .args(["copy", "--quiet", "--src-tls-verify=false"])
                .arg(format!("docker://{image}"))
                .arg(format!("dir:{}", directory.join("copy").display())),
        ),
    }
    let before = daemon.as_ref().map_or(Ok([0.0; 3]), Containerd::counters)?;
    let began = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let wall = began.elapsed().as_secs_f64() * 1e3;
    if !status.success() {
        return Err(io::Error::other(format!("{command:?}: {status}")));
    }
    let after = daemon.as_ref().map_or(Ok([0.0; 3]), Containerd::counters)?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let milliseconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    let cpu = milliseconds(usage.user_time()) + milliseconds(usage.system_time()) + after[0] - before[0];
    let peak = usage.max_rss() as f64 / 1e3 + after[1];
    let written = usage.block_writes() as f64 * 512.0 / 1e6 + after[2] - before[2];
    println!("{wall} {cpu} {peak} {written}");
    Ok(())
}

fn coraclectl() -> PathBuf {
    std::env::var_os("CORACLECTL").map_or_else(|| "target/release/coraclectl".into(), PathBuf::from)
}

/// A containerd of its own, ended when dropped.
struct Containerd {
    process: Child,
}

impl Containerd {
    fn start(directory: &Path) -> io::Result<Self> {
        let at = |name: &str| directory.join(name);
        let config = at("containerd.toml");
        // Without the CRI plugin: it would look for networks and other things of the machine.
        std::fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
        let process = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(at("root"))
            .arg("--state")
            .arg(at("state"))
            .arg("--address")
            .arg(at("sock"))
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let daemon = Self { process };
        let deadline = Instant::now() + Duration::from_secs(20);
        let ready = || {
            Command::new("ctr")
                .arg("--address")
                .arg(at("sock"))
                .arg("version")
                .output()
                .is_ok_and(|o| o.status.success())
        };
        while !ready() {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(daemon)
    }

    /// Processor ms, peak memory in MB, MB written, of the daemon since its start.
    fn counters(&self) -> io::Result<[f64; 3]> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.process.id()));
        let number = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0)
        };
        let stat = read("stat")?;
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok([
            ticks * 10.0,
            number(&read("status")?, "VmHWM:") / 1e3,
            number(&read("io")?, "write_bytes:") / 1e6,
        ])
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn file_system(directory: &Path) -> String {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(directory).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
