//! `layer.json`: what a committed layer is, the last file written into its directory.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{BackEnd, DiffId, Error};

pub(super) const FILE: &str = "layer.json";
const VERSION: u32 = 1;
/// A record has some hundred bytes; more is damage.
const LONGEST: u64 = 64 << 10;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    diff_id: String,
    /// Who wrote the layer.
    pub back_end: BackEnd,
    /// Length of the uncompressed tar.
    pub tar_size: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// SHA-256 of `index.erofs`, or of all that the tree holds; in hex.
    pub digest: String,
    /// Whether the root is opaque.
    #[serde(default)]
    pub is_opaque: bool,
    /// Bytes on disk at the time of commit.
    pub disk_bytes: u64,
}

impl Record {
    /// A record of the current version.
    pub fn new(diff_id: &DiffId, back_end: BackEnd, tar_size: u64, inodes: u64, digest: DiffId) -> Self {
        let (diff_id, digest) = (diff_id.to_string(), digest.hex());
        Self {
            version: VERSION,
            diff_id,
            back_end,
            tar_size,
            inodes,
            digest,
            disk_bytes: 0,
            is_opaque: false,
        }
    }

    /// Writes and syncs it.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::io("encode", &path)(error))?;
        text.push(b'\n');
        let mut file = fs::File::create_new(&path).map_err(Error::io("create", &path))?;
        file.write_all(&text).map_err(Error::io("write", &path))?;
        file.sync_all().map_err(Error::io("sync", &path))
    }

    /// Reads it and checks that it belongs to the directory.
    pub fn load(directory: &Path, diff_id: &DiffId) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let damaged = |what| Error::Damaged { diff_id: *diff_id, what };
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(if directory.exists() {
                    damaged("layer.json is missing")
                } else {
                    Error::NotFound { diff_id: *diff_id }
                });
            }
            metadata => metadata.map_err(Error::io("read", &path))?.len(),
        };
        if length > LONGEST {
            return Err(damaged("layer.json is too long"));
        }
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let record: Self = serde_json::from_slice(&text).map_err(|_| damaged("layer.json is unreadable"))?;
        if record.version != VERSION {
            return Err(damaged("layer.json has an unknown version"));
        }
        if record.diff_id != diff_id.to_string() {
            return Err(damaged("layer.json is another layer's"));
        }
        Ok(record)
    }
}
