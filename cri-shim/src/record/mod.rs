//! What the daemon knows of pods and containers: one JSON file an object, the disk is the truth, memory holds an index.
//!
//! ```text
//! <root>/cri/pods/<id>/sandbox.json          outlives a boot
//! <root>/cri/containers/<id>/container.json  outlives a boot; beside it `upper` and `work`, what the container wrote
//! ```
//!
//! A record is written before what it speaks of is done, so that a start after a crash finds everything there is to undo.
//! Files are readable by root only: environments hold secrets. A record that cannot be read is reported and treated as
//! absent; the kubelet makes a lost object anew.

mod index;
mod object;

pub use index::{Entry, Index, Record};
pub use object::{Container, ContainerState, Sandbox, SandboxState};

use std::path::{Path, PathBuf};

/// Why a record could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the records.
    #[error("{action} {path}: {source}")]
    Path { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A record has no form in JSON.
    #[error("record {id}: {source}")]
    Json { id: String, source: serde_json::Error },
}

/// All records.
#[derive(Debug)]
pub struct Records {
    pub sandboxes: Index<Sandbox>,
    pub containers: Index<Container>,
}

impl Records {
    /// Reads every record below `<root>/cri`; blocking.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let base = root.join("cri");
        Ok(Self {
            sandboxes: Index::open(base.join("pods"))?,
            containers: Index::open(base.join("containers"))?,
        })
    }

    /// The containers of a sandbox, those being created included.
    #[must_use]
    pub fn containers_of(&self, sandbox: &str) -> Vec<Entry<Container>> {
        self.containers.list().into_iter().filter(|c| c.read().sandbox == sandbox).collect()
    }
}
