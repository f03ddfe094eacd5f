//! Leases: what must outlive a sweep though no image record names it.
//!
//! A pull leases what it is about to fetch, bound to its process: the lease of a dead process counts for nothing. A
//! container's layers are leased by name until they are released, also across a reboot, whatever happens to the image.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{Error, Store, file, record};
use crate::Digest;

static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    version: u32,
    /// Absent: held until it is released.
    owner: Option<Owner>,
    pub(super) blobs: Vec<Digest>,
    pub(super) layers: Vec<Digest>,
}

impl record::Versioned for LeaseRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

/// A lease's file, and what is in it.
pub(super) type LeaseFile = (PathBuf, Result<LeaseRecord, Error>);

/// A process that a reused pid is not mistaken for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    boot: String,
    pid: u32,
    start: u64,
}

impl Owner {
    fn this_process() -> Option<Self> {
        let pid = std::process::id();
        Some(Self { boot: boot_id()?, pid, start: start_time(pid)? })
    }

    fn is_alive(&self) -> bool {
        boot_id().is_some_and(|boot| boot == self.boot) && start_time(self.pid) == Some(self.start)
    }
}

impl LeaseRecord {
    pub(super) fn is_held(&self) -> bool {
        self.owner.as_ref().is_none_or(Owner::is_alive)
    }
}

/// A lease of this process, given back when it is dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = file::remove_if_there(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "lease not removed; it ends with this process");
        }
    }
}

impl Store {
    /// Leases blobs and layers to this process. Waits while somebody sweeps.
    pub fn lease(&self, blobs: &[Digest], layers: &[Digest]) -> Result<Lease, Error> {
        let name = format!("pull-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.lease_path(&name);
        self.write_lease(&path, Owner::this_process(), blobs, layers)?;
        Ok(Lease { path })
    }

    /// Leases an image's layers under a name (a container's id) until [`Store::release`].
    pub fn lease_as(&self, name: &str, layers: &[Digest]) -> Result<(), Error> {
        self.write_lease(&self.lease_path(&format!("keep-{name}")), None, &[], layers)
    }

    /// Gives a named lease back; that there is none is fine.
    pub fn release(&self, name: &str) -> Result<(), Error> {
        self.unlink(&self.lease_path(&format!("keep-{name}"))).map(|_| ())
    }

    fn write_lease(
        &self,
        path: &std::path::Path,
        owner: Option<Owner>,
        blobs: &[Digest],
        layers: &[Digest],
    ) -> Result<(), Error> {
        let _guard = self.share()?;
        let lease =
            LeaseRecord { version: record::VERSION, owner, blobs: blobs.to_vec(), layers: layers.to_vec() };
        record::save(path, &lease)
    }

    fn lease_path(&self, name: &str) -> PathBuf {
        self.path("leases").join(record::ref_file_name(name))
    }

    /// Leases with their files; unreadable ones are problems.
    pub(super) fn leases(&self) -> Result<Vec<LeaseFile>, Error> {
        let directory = self.path("leases");
        let names = file::names(&directory).map_err(Error::io("read", &directory))?;
        let paths = names.iter().filter(|name| name.ends_with(".json")).map(|name| directory.join(name));
        Ok(paths
            .map(|path| {
                let lease = record::load(&path);
                (path, lease)
            })
            .collect())
    }
}

fn boot_id() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

// Field 22 of /proc/<pid>/stat (proc_pid_stat(5)); the command in field 2 may hold spaces and parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_command = stat.rsplit_once(')')?.1;
    after_command.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_does_not_hold_a_lease() {
        let me = Owner::this_process().unwrap();
        assert!(me.is_alive());
        assert!(!Owner { start: me.start + 1, ..me.clone() }.is_alive());
        assert!(!Owner { boot: "another".into(), ..me }.is_alive());
    }
}
