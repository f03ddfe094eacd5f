//! A `coracled` of the quick start's own, and everything that has to go with it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::interrupt::Interrupt;
use super::{BRIDGE, Place};

const DEADLINE: Duration = Duration::from_secs(20);

/// Turned on by the embedded network.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Private networks of which the first one that no route of this machine touches is taken.
const SUBNETS: [&str; 4] = ["10.89.77.0/24", "10.203.77.0/24", "172.29.77.0/24", "192.168.177.0/24"];

/// A daemon that answers.
pub struct Daemon {
    process: Child,
    coraclectl: PathBuf,
    data: PathBuf,
    state: PathBuf,
    /// What stood in `FORWARDING` before.
    forwarding: String,
}

impl Daemon {
    pub fn start(place: &Place, interrupt: &Interrupt) -> Result<Self, String> {
        let config = place.data.join("coracled.toml");
        write(&config, &configuration(place))?;
        let forwarding = std::fs::read_to_string(FORWARDING).unwrap_or_default();
        let log = place.data.join("coracled.log");
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new(place.programs.join("coracled"));
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        println!("$ coracled --config {}", config.display());
        // A group of its own: Ctrl-C is for us, who then stop it.
        let process = command.process_group(0).spawn().map_err(|error| format!("coracled: {error}"))?;
        let mut daemon = Self {
            process,
            coraclectl: place.programs.join("coraclectl"),
            data: place.data.clone(),
            state: place.state.clone(),
            forwarding,
        };
        match interrupt.until("coracled answers", DEADLINE, || daemon.answers()) {
            Ok(()) => Ok(daemon),
            Err(error) => {
                daemon.print_log();
                daemon.end()?;
                Err(error)
            }
        }
    }

    fn answers(&mut self) -> Result<Option<()>, String> {
        if let Ok(Some(status)) = self.process.try_wait() {
            return Err(format!("coracled ended: {status}"));
        }
        let output = self.ctl(&["pods", "-q"]).output().map_err(|error| format!("coraclectl: {error}"))?;
        Ok(output.status.success().then_some(()))
    }

    /// A command of `coraclectl` for this daemon.
    pub fn ctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.coraclectl);
        command.arg("--socket").arg(self.socket()).arg("--root").arg(self.data.join("root"));
        command.args(words).stdin(Stdio::null());
        command
    }

    pub fn socket(&self) -> PathBuf {
        self.state.join("coracled.sock")
    }

    pub fn program(&self) -> &Path {
        &self.coraclectl
    }

    /// Runs it as a person would, and shows that.
    pub fn show(&self, words: &[&str]) -> Result<(), String> {
        println!("\n$ coraclectl {}", words.join(" "));
        crate::succeed(&mut self.ctl(words), &format!("coraclectl {}", words.join(" ")))
    }

    /// What it prints.
    pub fn read(&self, words: &[&str]) -> Result<String, String> {
        let output = self.ctl(words).output().map_err(|error| format!("coraclectl: {error}"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("coraclectl {}: {}", words.join(" "), errors.trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn remove_pods(&self) -> Result<(), String> {
        self.read(&["rm", "--force", "--all"]).map(|_| ())
    }

    pub fn print_log(&self) {
        let log = std::fs::read_to_string(self.data.join("coracled.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("\nthe end of coracled's log:");
        lines[lines.len().saturating_sub(30)..].iter().for_each(|line| println!("  {line}"));
    }

    /// Removes the pods, ends the daemon, removes its network and files. Every step is taken, the first failure told.
    pub fn end(mut self) -> Result<(), String> {
        let running = matches!(self.process.try_wait(), Ok(None));
        let steps = [
            if running { self.remove_pods() } else { Ok(()) },
            self.stop(),
            remove_network(&self.forwarding),
            remove_tree(&self.data),
            remove_tree(&self.state),
        ];
        remove_cgroups();
        steps.into_iter().collect()
    }

    fn stop(&mut self) -> Result<(), String> {
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let (Ok(None), Some(pid)) = (self.process.try_wait(), pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let status = self.process.wait().map_err(|error| format!("coracled: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("coracled ended: {status}")) }
    }
}

fn configuration(place: &Place) -> String {
    let (data, state) = (place.data.display(), place.state.display());
    let subnet = free_subnet(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    format!(
        "root = \"{data}/root\"\nstate = \"{state}\"\nsocket = \"{state}/coracled.sock\"\nnetwork = \"embedded\"\n\n\
         [embedded]\nbridge = \"{BRIDGE}\"\nsubnet = \"{subnet}\"\n"
    )
}

/// `routes` is `/proc/net/route`: addresses and masks as little-endian hexadecimal numbers.
fn free_subnet(routes: &str) -> &'static str {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let taken: Vec<(u32, u32)> = routes
        .lines()
        .skip(1)
        // Of a run that was killed: it is used again.
        .filter(|line| !line.starts_with(BRIDGE))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((number(fields.get(1)?)?, number(fields.get(7)?)?))
        })
        .filter(|(_, mask)| *mask != 0)
        .collect();
    let overlaps = |subnet: &str| {
        let address = subnet.split('/').next().and_then(|ip| ip.parse::<std::net::Ipv4Addr>().ok());
        let address = address.map_or(0, u32::from);
        taken.iter().any(|(network, mask)| (address ^ network) & (mask & 0xFFFF_FF00) == 0)
    };
    SUBNETS.into_iter().find(|subnet| !overlaps(subnet)).unwrap_or(SUBNETS[0])
}

/// The daemon leaves its bridge for the pods that outlive it; here none does.
fn remove_network(forwarding: &str) -> Result<(), String> {
    // Where it was off nobody but the daemon has turned it on.
    if forwarding.trim() == "0" {
        write(Path::new(FORWARDING), forwarding)?;
    }
    let table = format!("coracle-{BRIDGE}");
    quietly(Command::new("nft").args(["delete", "table", "ip", &table]));
    quietly(Command::new("ip").args(["link", "delete", BRIDGE]));
    let left = Path::new("/sys/class/net").join(BRIDGE).exists();
    if left { Err(format!("the bridge {BRIDGE} cannot be removed")) } else { Ok(()) }
}

/// Runs what may have nothing to do.
fn quietly(command: &mut Command) {
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Removes a directory in which nothing may be mounted any more.
fn remove_tree(path: &Path) -> Result<(), String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|at| Path::new(at).starts_with(path));
    if let Some(mount) = below {
        return Err(format!("{mount} is still mounted"));
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the parent of the pods' groups from every hierarchy, where nobody else's pods are below it.
fn remove_cgroups() {
    for mount in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        if let (true, Some(root)) = (mount.contains(" - cgroup"), mount.split(' ').nth(4)) {
            let _ = std::fs::remove_dir(Path::new(root).join("coracle"));
        }
    }
}

pub fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_that_is_routed_is_not_taken() {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n";
        let default = "eth0\t00000000\t0100000A\t3\t0\t0\t0\t00000000\t0\n";
        assert_eq!(free_subnet(&format!("{head}{default}")), SUBNETS[0]);
        let ten = "eth0\t0000000A\t00000000\t1\t0\t0\t0\t000000FF\t0\n";
        assert_eq!(free_subnet(&format!("{head}{default}{ten}")), SUBNETS[2]);
        let ours = format!("{BRIDGE}\t004D590A\t00000000\t1\t0\t0\t0\t00FFFFFF\t0\n");
        assert_eq!(free_subnet(&format!("{head}{ours}")), SUBNETS[0]);
    }
}
