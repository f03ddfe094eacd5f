//! The embedded network: a bridge, addresses from one subnet, masquerading, host ports. No plugin is executed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::lease::{Leases, Subnet};
use super::link::Links;
use super::{Attachment, Error, PodRef, nat, netns};

/// The `[embedded]` table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// IPv4 subnet of the pods; its first address is the bridge's.
    pub subnet: String,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { bridge: "coracle0".into(), subnet: "10.89.0.0/16".into() }
    }
}

/// The network, set up at its first use.
#[derive(Debug)]
pub struct Embedded {
    bridge: String,
    subnet: Subnet,
    leases: Leases,
    /// Index of the bridge once it stands.
    ready: OnceCell<u32>,
}

impl Embedded {
    /// Opens the lease table below the run directory; touches no interface yet.
    pub fn open(config: &EmbeddedConfig, state: &Path) -> Result<Self, Error> {
        let subnet = Subnet::parse(&config.subnet)?;
        let leases = Leases::open(&state.join("network/leases"), subnet)?;
        Ok(Self { bridge: config.bridge.clone(), subnet, leases, ready: OnceCell::new() })
    }

    pub(super) async fn attach(&self, pod: &PodRef) -> Result<Attachment, Error> {
        let bridge = *self.ready.get_or_try_init(|| self.set_up()).await?;
        let address = self.leases.acquire(&pod.id)?;
        let (host, peer) = veth_names(&pod.id);
        let file = std::fs::File::open(&pod.netns).map_err(|source| Error::Namespace {
            path: pod.netns.clone(),
            action: "open",
            source,
        })?;
        Links::open()?.ensure_veth(&host, &peer, bridge, file.as_fd()).await?;
        let (gateway, prefix) = (self.subnet.gateway(), self.subnet.prefix);
        netns::run_in(&pod.netns, move || async move {
            Links::open()?.configure_pod(&peer, address, prefix, gateway).await
        })
        .await?;
        nat::apply(&nat::render_ports(&self.bridge, "add", address, &pod.ports)).await?;
        Ok(Attachment { ips: vec![IpAddr::V4(address)], ..Attachment::default() })
    }

    /// What is outside of the namespace: ports, lease, and an end of the pair that never reached the pod. The pair itself goes
    /// with the namespace, which the caller drops: that costs nothing, deleting it here waits for the kernel's grace period.
    pub(super) async fn detach(&self, pod: &PodRef) -> Result<(), Error> {
        let (host, peer) = veth_names(&pod.id);
        if !pod.ports.is_empty() {
            for address in self.addresses_of(&pod.id)? {
                nat::remove_all_to(&self.bridge, address).await?;
            }
        }
        let links = Links::open()?;
        if !netns::is_pinned(&pod.netns) || links.index(&peer).await?.is_some() {
            links.delete(&host).await?;
        }
        self.leases.release(&pod.id)
    }

    async fn give_back(&self, sandbox: &str) -> Result<(), Error> {
        for address in self.addresses_of(sandbox)? {
            nat::remove_all_to(&self.bridge, address).await?;
        }
        let (host, _) = veth_names(sandbox);
        Links::open()?.delete(&host).await?;
        self.leases.release(sandbox)
    }

    /// Frees the addresses, ports and interfaces of sandboxes that no record knows.
    pub(super) async fn sweep(&self, known: &BTreeSet<String>) -> Result<(), Error> {
        for (address, holder) in self.leases.list()?.into_iter().filter(|(_, holder)| !known.contains(holder))
        {
            tracing::info!(%address, sandbox = holder, "address of a pod that is gone, freed");
            self.give_back(&holder).await?;
        }
        Ok(())
    }

    pub(super) async fn problem(&self) -> Option<String> {
        self.ready.get_or_try_init(|| self.set_up()).await.err().map(|e| e.to_string())
    }

    fn addresses_of(&self, sandbox: &str) -> Result<Vec<Ipv4Addr>, Error> {
        Ok(self.leases.list()?.into_iter().filter(|(_, holder)| holder == sandbox).map(|(a, _)| a).collect())
    }

    async fn set_up(&self) -> Result<u32, Error> {
        let index =
            Links::open()?.ensure_bridge(&self.bridge, self.subnet.gateway(), self.subnet.prefix).await?;
        write_sysctl("/proc/sys/net/ipv4/ip_forward", "1")?;
        // Lets host ports be reached over 127.0.0.1; limited to this bridge.
        write_sysctl(&format!("/proc/sys/net/ipv4/conf/{}/route_localnet", self.bridge), "1")?;
        nat::apply(&nat::render_table(&self.bridge, &self.subnet.to_string())).await?;
        Ok(index)
    }
}

/// Writes only where the value differs: `/proc/sys` may be read-only in a container that has it right.
fn write_sysctl(path: &str, value: &str) -> Result<(), Error> {
    if std::fs::read_to_string(path).is_ok_and(|v| v.trim() == value) {
        return Ok(());
    }
    std::fs::write(path, value).map_err(|source| Error::File { path: path.into(), source })
}

/// Interface names of a pod: at most 15 bytes, unique by 44 bits of the id.
fn veth_names(id: &str) -> (String, String) {
    let short: String = id.chars().take(11).collect();
    (format!("veth{short}"), format!("ctmp{short}"))
}
