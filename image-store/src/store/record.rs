//! The records on disk: one for each image, one for each name of an image.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::Digest;
use crate::layer::DiffId;

/// The version that this build writes, and the highest that it reads.
pub const VERSION: u32 = 1;

/// An image: what its configuration and manifest say, and which layers make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Version of the record's format.
    pub version: u32,
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// The manifest for the platform.
    pub manifest: Digest,
    /// `linux` in general.
    pub os: String,
    /// In Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// From the lowest to the uppermost.
    pub layers: Vec<LayerRecord>,
    /// Seconds since 1970 when it was pulled or imported.
    pub added: u64,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the blob as the registry has it.
    pub blob: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the uncompressed tar: the layer's name in the store.
    pub diff_id: Digest,
}

impl LayerRecord {
    /// The layer's name in the layer store.
    #[must_use]
    pub const fn layer(&self) -> DiffId {
        self.diff_id.to_diff_id()
    }
}

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefRecord {
    /// Version of the record's format.
    pub version: u32,
    /// `registry/repository:tag` or `registry/repository@digest`.
    pub name: String,
    /// The image's id.
    pub image: Digest,
    /// What the name resolved to at the registry: the digest of the index, or of the manifest where there is no index.
    pub digest: Digest,
    /// The manifests and the configuration that led to the image.
    pub blobs: Vec<Digest>,
    /// Seconds since 1970 when the name was set.
    pub updated: u64,
}

pub(super) trait Versioned: serde::de::DeserializeOwned {
    fn version(&self) -> u32;
}

impl Versioned for ImageRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

impl Versioned for RefRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

/// Reads and checks a record.
pub(super) fn load<T: Versioned>(path: &Path) -> Result<T, Error> {
    let content = super::file::read_record(path).map_err(Error::io("read", path))?;
    let record: T = serde_json::from_slice(&content)
        .map_err(|error| Error::Record { path: path.to_owned(), what: error.to_string() })?;
    if record.version() > VERSION {
        let what = format!("version {} is newer than this program, which knows {VERSION}", record.version());
        return Err(Error::Record { path: path.to_owned(), what });
    }
    Ok(record)
}

/// Writes a record, durable when it returns.
pub(super) fn save<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    let mut content = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::Record { path: path.to_owned(), what: error.to_string() })?;
    content.push(b'\n');
    super::file::replace(path, &content).map_err(Error::io("write", path))
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The file name of a reference's record: readable, without `/`, of bounded length.
#[must_use]
pub fn ref_file_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 16);
    for character in name.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | ':' | '@' => text.push(character),
            other => {
                let mut buffer = [0u8; 4];
                for byte in other.encode_utf8(&mut buffer).bytes() {
                    text.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    if text.len() > 200 || text.starts_with('.') {
        text = format!("name-{}", Digest::of(name.as_bytes()).hex());
    }
    text + ".json"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_below_the_directory() {
        assert_eq!(ref_file_name("docker.io/library/a:1"), "docker.io%2Flibrary%2Fa:1.json");
        assert!(!ref_file_name("../x").contains('/'));
        assert!(ref_file_name(&"x/".repeat(300)).len() < 255);
        assert_ne!(ref_file_name(&"x/".repeat(300)), ref_file_name(&"x/".repeat(301)));
    }
}
