//! Which device nodes and links `/dev` gets: runc's default set, overridden and completed by `linux.devices`.

use super::{HostFacts, Problem};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use std::path::{Path, PathBuf};

/// The kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeType {
    /// `c` and `u`.
    Char,
    /// `b`.
    Block,
    /// `p`; has no number.
    Fifo,
}

/// One node to make, or to bind from the host where mknod is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path in the container.
    pub path: PathBuf,
    /// Character, block or FIFO.
    pub node_type: NodeType,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Owner, as the container sees it.
    pub uid: u32,
    /// Group, as the container sees it.
    pub gid: u32,
}

/// What is made in `/dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicesPlan {
    /// False when `/dev` is a bind mount: then nothing in it is touched.
    pub enabled: bool,
    /// Bind the host's nodes because a user namespace can't make any.
    pub bind: bool,
    /// Nodes in order.
    pub nodes: Vec<DeviceNode>,
    /// Symbolic links: (path, target). `/dev/ptmx` replaces what is there, the others don't; `/dev/core` is made only
    /// where the kernel has `/proc/kcore`.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// Path and number of the character devices that every container has.
const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
];

/// Plans `/dev`; `enabled` says that no bind mount covers it, `user_namespace` that the container has one.
pub(super) fn plan_devices(
    spec: &Spec,
    facts: &HostFacts,
    enabled: bool,
    user_namespace: bool,
    problems: &mut Vec<Problem>,
) -> DevicesPlan {
    let wanted = spec.linux().as_ref().and_then(|l| l.devices().as_deref()).unwrap_or(&[]);
    let mut nodes: Vec<DeviceNode> = DEFAULT_NODES
        .iter()
        .filter(|(path, ..)| !wanted.iter().any(|d| d.path() == Path::new(path)))
        .map(|&(path, major, minor)| default_node(path, major, minor))
        .collect();
    for (i, device) in wanted.iter().enumerate() {
        // The link to pts/ptmx takes its place.
        if super::mounts::clean(device.path()) == Path::new("/dev/ptmx") {
            continue;
        }
        match node(device) {
            Ok(node) => nodes.push(node),
            Err(message) => problems.push(Problem::new(format!("linux.devices[{i}]"), message)),
        }
    }
    let mut links = vec![(PathBuf::from("/dev/ptmx"), PathBuf::from("pts/ptmx"))];
    links.extend(LINKS.iter().map(|(path, target)| (PathBuf::from(path), PathBuf::from(target))));
    DevicesPlan { enabled, bind: user_namespace || facts.is_rootless(), nodes, links }
}

fn default_node(path: &str, major: u32, minor: u32) -> DeviceNode {
    let path = PathBuf::from(path);
    DeviceNode { path, node_type: NodeType::Char, number: (major, minor), mode: 0o666, uid: 0, gid: 0 }
}

fn node(device: &LinuxDevice) -> Result<DeviceNode, String> {
    let path = device.path();
    let node_type = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => NodeType::Char,
        LinuxDeviceType::B => NodeType::Block,
        LinuxDeviceType::P => NodeType::Fifo,
        LinuxDeviceType::A => return Err(format!("invalid device type \"a\" of {}", path.display())),
    };
    let number = if node_type == NodeType::Fifo {
        (0, 0)
    } else {
        let part =
            |n: i64| u32::try_from(n).map_err(|_| format!("invalid device number {n} of {}", path.display()));
        (part(device.major())?, part(device.minor())?)
    };
    if path.as_os_str().is_empty() {
        return Err("device without a path".to_owned());
    }
    Ok(DeviceNode {
        path: super::mounts::clean(path),
        node_type,
        number,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
