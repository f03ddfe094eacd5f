//! Addresses of the embedded network: one file an address, named after it, holding the sandbox's id.
//!
//! `O_EXCL` makes a lease atomic between daemons; a crash leaves a file that names its sandbox, so that it can be freed.
//! The directory is part of the run directory: addresses do not outlive a boot.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::Error;

/// An IPv4 subnet, written `a.b.c.d/n`; the first address is the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    pub prefix: u8,
}

impl Subnet {
    /// Parses; the prefix must leave room for pods.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::Subnet(text.into());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if !(8..=29).contains(&prefix) {
            return Err(bad());
        }
        let mask = u32::MAX << (32 - prefix);
        Ok(Self { base: u32::from(address) & mask, prefix })
    }

    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Number of addresses for pods.
    fn size(self) -> u32 {
        (1 << (32 - self.prefix)) - 3
    }

    fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 2 + n)
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// The lease table.
#[derive(Debug)]
pub struct Leases {
    directory: PathBuf,
    subnet: Subnet,
}

impl Leases {
    pub fn open(directory: &Path, subnet: Subnet) -> Result<Self, Error> {
        std::fs::create_dir_all(directory)
            .map_err(|source| Error::File { path: directory.into(), source })?;
        Ok(Self { directory: directory.into(), subnet })
    }

    /// Leases an address to `sandbox`; a second call returns the same one.
    pub fn acquire(&self, sandbox: &str) -> Result<Ipv4Addr, Error> {
        if let Some(address) = self.of(sandbox)?.first() {
            return Ok(*address);
        }
        let size = self.subnet.size();
        let start = self.after_last(size);
        for n in 0..size {
            let n = (start + n) % size;
            if self.try_lease(n, sandbox)? {
                self.remember(n);
                return Ok(self.subnet.nth(n));
            }
        }
        Err(Error::Exhausted { subnet: self.subnet.to_string(), used: self.list()?.len() })
    }

    /// Frees all addresses of `sandbox`.
    pub fn release(&self, sandbox: &str) -> Result<(), Error> {
        for address in self.of(sandbox)? {
            let path = self.directory.join(address.to_string());
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(Error::File { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All leases: address and sandbox.
    pub fn list(&self) -> Result<Vec<(Ipv4Addr, String)>, Error> {
        let fail = |source| Error::File { path: self.directory.clone(), source };
        let mut leases = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(address) = entry.file_name().to_string_lossy().parse() else { continue };
            let mut holder = String::new();
            if let Ok(file) = File::open(entry.path()) {
                let _ = file.take(256).read_to_string(&mut holder);
            }
            leases.push((address, holder));
        }
        Ok(leases)
    }

    fn of(&self, sandbox: &str) -> Result<Vec<Ipv4Addr>, Error> {
        Ok(self.list()?.into_iter().filter(|(_, holder)| holder == sandbox).map(|(a, _)| a).collect())
    }

    fn try_lease(&self, n: u32, sandbox: &str) -> Result<bool, Error> {
        let path = self.directory.join(self.subnet.nth(n).to_string());
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => match file.write_all(sandbox.as_bytes()) {
                Ok(()) => Ok(true),
                Err(source) => {
                    let _ = std::fs::remove_file(&path);
                    Err(Error::File { path, source })
                }
            },
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// An address is not given out again at once: a peer may still hold connections to its last owner.
    fn after_last(&self, size: u32) -> u32 {
        let text = std::fs::read_to_string(self.directory.join("last")).unwrap_or_default();
        text.trim().parse::<u32>().map_or(0, |n| (n + 1) % size)
    }

    fn remember(&self, n: u32) {
        // A hint only: losing it costs nothing but the order in which addresses are tried.
        let _ = std::fs::write(self.directory.join("last"), n.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_checked() {
        let subnet = Subnet::parse("10.88.3.7/16").expect("valid");
        assert_eq!(
            (subnet.to_string().as_str(), subnet.gateway()),
            ("10.88.0.0/16", Ipv4Addr::new(10, 88, 0, 1))
        );
        for bad in ["10.0.0.0", "10.0.0.0/30", "10.0.0.0/7", "x/16", "10.0.0.0/x", ""] {
            assert!(Subnet::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn leases_are_unique_stable_and_exhaustible() {
        let directory = tempfile::tempdir().expect("tempdir");
        let leases =
            Leases::open(directory.path(), Subnet::parse("10.0.0.0/29").expect("valid")).expect("open");
        let got: Vec<_> = (0..5).map(|n| leases.acquire(&format!("s{n}")).expect("free")).collect();
        assert_eq!(got, (2..7).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect::<Vec<_>>());
        assert_eq!(leases.acquire("s3").expect("same"), got[3]);
        assert!(matches!(leases.acquire("s9"), Err(Error::Exhausted { used: 5, .. })));
        leases.release("s1").expect("release");
        leases.release("s1").expect("again");
        assert_eq!(leases.acquire("s9").expect("freed"), got[1]);
    }

    #[test]
    fn a_freed_address_is_not_reused_at_once() {
        let directory = tempfile::tempdir().expect("tempdir");
        let leases =
            Leases::open(directory.path(), Subnet::parse("10.0.0.0/24").expect("valid")).expect("open");
        let first = leases.acquire("a").expect("free");
        leases.release("a").expect("release");
        assert_ne!(leases.acquire("b").expect("free"), first);
    }
}
