//! Interfaces by netlink: bridge, veth pair, addresses, routes. Every step accepts that it was done before.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::Error;

/// A netlink socket in the calling thread's namespace, served until it is dropped.
pub(super) struct Links {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    pub(super) fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| Error::File { path: "NETLINK_ROUTE".into(), source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The index of an interface, `None` where there is none of that name.
    pub(super) async fn index(&self, name: &str) -> Result<Option<u32>, Error> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await {
            Ok(link) => Ok(link.map(|l| l.header.index)),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc_enodev() => Ok(None),
            Err(source) => Err(Error::Link { action: "look up interface", object: name.into(), source }),
        }
    }

    async fn existing(&self, name: &str) -> Result<u32, Error> {
        self.index(name).await?.ok_or_else(|| Error::Link {
            action: "look up interface",
            object: name.into(),
            source: rtnetlink::Error::RequestFailed,
        })
    }

    /// A bridge of that name with the gateway's address, up; returns its index.
    pub(super) async fn ensure_bridge(
        &self,
        name: &str,
        gateway: Ipv4Addr,
        prefix: u8,
    ) -> Result<u32, Error> {
        let made = self.handle.link().add(LinkBridge::new(name).build()).execute().await;
        tolerate_existing(made, "add bridge", name)?;
        let index = self.existing(name).await?;
        self.add_address(index, name, gateway, prefix).await?;
        self.set(LinkUnspec::new_with_index(index).up().build(), "bring up", name).await?;
        Ok(index)
    }

    /// A veth pair: `host` on `bridge` and up, `peer` moved into the namespace behind `netns`.
    pub(super) async fn ensure_veth(
        &self,
        host: &str,
        peer: &str,
        bridge: u32,
        netns: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let made = self.handle.link().add(LinkVeth::new(host, peer).build()).execute().await;
        tolerate_existing(made, "add veth", host)?;
        if let Some(index) = self.index(peer).await? {
            let moved = LinkUnspec::new_with_index(index).setns_by_fd(netns.as_raw_fd()).build();
            self.set(moved, "move into the pod", peer).await?;
        }
        let index = self.existing(host).await?;
        let attached = LinkUnspec::new_with_index(index).controller(bridge).up().build();
        self.set(attached, "attach to the bridge", host).await?;
        // With br_netfilter the bridge itself rewrites a pod's packet to its own host port and must send it back out of
        // the port on which it came.
        let hairpin = LinkBridgePort::new(index).hairpin(true).build();
        let set = self.handle.link().set_port(hairpin).execute().await;
        set.map_err(|source| Error::Link { action: "set hairpin mode of", object: host.into(), source })
    }

    /// Inside the pod: `lo` up, `from` renamed to `eth0`, its address, up, a default route.
    pub(super) async fn configure_pod(
        &self,
        from: &str,
        address: Ipv4Addr,
        prefix: u8,
        gateway: Ipv4Addr,
    ) -> Result<(), Error> {
        let lo = self.existing("lo").await?;
        self.set(LinkUnspec::new_with_index(lo).up().build(), "bring up", "lo").await?;
        if let Some(index) = self.index(from).await? {
            self.set(LinkUnspec::new_with_index(index).name("eth0".into()).build(), "rename to eth0", from)
                .await?;
        }
        let eth0 = self.existing("eth0").await?;
        self.add_address(eth0, "eth0", address, prefix).await?;
        self.set(LinkUnspec::new_with_index(eth0).up().build(), "bring up", "eth0").await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(eth0).build();
        tolerate_existing(
            self.handle.route().add(route).execute().await,
            "add default route by",
            &gateway.to_string(),
        )
    }

    /// Deletes an interface (and its veth peer); one that is gone is fine.
    pub(super) async fn delete(&self, name: &str) -> Result<(), Error> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc_enodev() => Ok(()),
            other => other.map_err(|source| Error::Link { action: "delete", object: name.into(), source }),
        }
    }

    async fn add_address(&self, index: u32, name: &str, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let added = self.handle.address().add(index, address.into(), prefix).execute().await;
        tolerate_existing(added, "add address to", name)
    }

    async fn set(
        &self,
        message: rtnetlink::packet_route::link::LinkMessage,
        action: &'static str,
        name: &str,
    ) -> Result<(), Error> {
        let done = self.handle.link().change(message).execute().await;
        done.map_err(|source| Error::Link { action, object: name.into(), source })
    }
}

fn tolerate_existing(
    result: Result<(), rtnetlink::Error>,
    action: &'static str,
    object: &str,
) -> Result<(), Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -(nix::errno::Errno::EEXIST as i32) => {
            Ok(())
        }
        other => other.map_err(|source| Error::Link { action, object: object.into(), source }),
    }
}

const fn libc_enodev() -> i32 {
    nix::errno::Errno::ENODEV as i32
}
