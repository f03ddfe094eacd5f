//! Pod networks: none (host), the embedded one, or CNI plugins.
//!
//! Order is what keeps addresses from leaking: the caller records the intent (namespace name, lease) before `attach`, and
//! `detach` works from the record alone, any number of times, also after a reboot.

pub mod cni;
mod embedded;
mod lease;
mod link;
pub mod nat;
pub mod netns;

pub use embedded::{Embedded, EmbeddedConfig};

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What stands in the way of a pod's network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace could not be made, entered or pinned.
    #[error("network namespace {path}: {action}: {source}")]
    Namespace { path: PathBuf, action: &'static str, source: std::io::Error },
    /// A netlink request was refused.
    #[error("{action} {object}: {source}")]
    Link { action: &'static str, object: String, source: rtnetlink::Error },
    /// A file of the lease table or of `/proc/sys` could not be used.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// Every address of the subnet is leased.
    #[error("no free address in {subnet}: {used} are leased")]
    Exhausted { subnet: String, used: usize },
    /// The subnet of the configuration cannot hold pods.
    #[error("subnet {0}: not of the form a.b.c.d/8 to /29")]
    Subnet(String),
    /// `nft` refused the rules.
    #[error("nft: {0}")]
    Nft(String),
    /// A CNI plugin or its configuration failed.
    #[error("cni {plugin} {command}: {why}")]
    Cni { plugin: String, command: &'static str, why: String },
}

/// A port of the host that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// What a pod's network needs to know of the pod.
#[derive(Debug, Clone)]
pub struct PodRef {
    pub id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub netns: PathBuf,
    pub ports: Vec<HostPort>,
}

/// What `attach` found out; kept in the sandbox's record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The pod's addresses, the primary first.
    pub ips: Vec<IpAddr>,
    /// The CNI result of the last plugin, for DEL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni_result: Option<serde_json::Value>,
    /// The plugin chain that made it: DEL goes the same way, whatever the node's configuration has become since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni_chain: Option<cni::Chain>,
}

/// The network that the daemon was configured with.
#[derive(Debug)]
pub enum Network {
    Embedded(Embedded),
    Cni(cni::Cni),
}

impl Network {
    /// What is going to be done: recorded before [`Self::attach`], so that `detach` can undo half of it.
    pub fn intend(&self) -> Result<Attachment, Error> {
        match self {
            Self::Embedded(_) => Ok(Attachment::default()),
            Self::Cni(cni) => Ok(Attachment { cni_chain: Some(cni.chain()?), ..Attachment::default() }),
        }
    }

    /// Connects the pod's namespace as intended; what a failure leaves is undone by `detach`.
    pub async fn attach(&self, pod: &PodRef, intended: &Attachment) -> Result<Attachment, Error> {
        match self {
            Self::Embedded(net) => net.attach(pod).await,
            Self::Cni(cni) => cni.add(pod, intended).await,
        }
    }

    /// Disconnects; succeeds where nothing is left to do.
    pub async fn detach(&self, pod: &PodRef, attachment: &Attachment) -> Result<(), Error> {
        match self {
            Self::Embedded(net) => net.detach(pod).await,
            Self::Cni(cni) => cni.del(pod, attachment).await,
        }
    }

    /// Gives back what belongs to no sandbox of `known`. Plugins keep their own books.
    pub async fn sweep(&self, known: &BTreeSet<String>) -> Result<(), Error> {
        match self {
            Self::Embedded(net) => net.sweep(known).await,
            Self::Cni(_) => Ok(()),
        }
    }

    /// Why pods cannot be connected now, if so (the kubelet's NetworkReady condition).
    pub async fn problem(&self) -> Option<String> {
        match self {
            Self::Embedded(net) => net.problem().await,
            Self::Cni(cni) => cni.problem(),
        }
    }
}
