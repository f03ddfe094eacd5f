//! Images to files: one tar that is an OCI layout and a `docker save` archive at once, so that podman, skopeo, docker,
//! containerd and [`crate::import`] read it.
//!
//! The store keeps layers uncompressed, so their blobs are the tars: configuration and image id stay, the manifest is a new
//! one. Every layer is checked against its diff-id while it is written. Layers of the tree back end are not there as tars
//! any more and cannot be exported.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;

use crate::digest::Hasher;
use crate::error::{ErrorKind, Kind};
use crate::layer::{self, BackEnd, CommittedLayer};
use crate::progress::{Event, Progress};
use crate::store::{self, ImageRecord};
use crate::{Digest, Store};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const BLOCK: usize = 512;
const BUFFER: usize = 256 << 10;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive cannot be written.
    #[error("write the archive")]
    Write(#[source] io::Error),
    /// A layer's file cannot be read.
    #[error("read {path}")]
    Read {
        /// Which file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A layer that is stored as files.
    #[error("layer {0} is stored unpacked, its archive is gone")]
    Unpacked(Digest),
    /// A layer that is not what its name says.
    #[error("layer {0} is damaged")]
    Damaged(Digest),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The layer store.
    #[error(transparent)]
    Layer(#[from] layer::Error),
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Write(source) | Self::Read { source, .. } => ErrorKind::from_io(source),
            Self::Unpacked(_) => ErrorKind::Unsupported,
            Self::Damaged(_) => ErrorKind::Corrupt,
            Self::Store(error) => error.kind(),
            Self::Layer(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unpacked(_) => {
                Some("layers are kept as archives where the kernel mounts them, from Linux 6.4 on".into())
            }
            Self::Damaged(_) => {
                Some("`coraclectl fsck --repair` drops it and says what to pull again".into())
            }
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The image's id, the same as before.
    pub id: Digest,
    /// The new manifest.
    pub manifest: Digest,
    /// The tags in it.
    pub names: Vec<String>,
}

/// Writes an image with all its tags. Blocking; the layers are leased meanwhile.
pub fn export(
    store: &Store,
    name: &str,
    out: &mut impl Write,
    progress: &Progress,
) -> Result<Exported, Error> {
    let image = store.image(name)?;
    let record = &image.record;
    let diff_ids: Vec<Digest> = record.layers.iter().map(|layer| layer.diff_id).collect();
    let _lease = store.lease(&[record.id, record.manifest], &diff_ids)?;
    let config = store.blob(&record.id)?;
    let layers = open_layers(store, record)?;
    let manifest = manifest(record, config.len(), &layers);
    let exported = Exported { id: record.id, manifest: Digest::of(&manifest), names: image.repo_tags() };
    let announced = layers.iter().map(|layer| (digest_of(layer), layer.tar_size)).collect();
    progress.emit(&Event::Resolved { digest: exported.manifest, layers: announced });
    let mut tar = Tar { out };
    tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file(&blob(&record.id), &config)?;
    let mut seen = HashSet::new();
    for layer in layers.iter().filter(|layer| seen.insert(layer.diff_id)) {
        tar.layer(layer, progress)?;
    }
    tar.file(&blob(&exported.manifest), &manifest)?;
    tar.file("index.json", &index(&exported, manifest.len()))?;
    tar.file("manifest.json", &docker_manifest(&exported, &layers))?;
    tar.end()?;
    Ok(exported)
}

fn open_layers(store: &Store, record: &ImageRecord) -> Result<Vec<CommittedLayer>, Error> {
    let open = |layer: &store::LayerRecord| match store.layers().open(&layer.layer())? {
        found if found.back_end == BackEnd::Tree => Err(Error::Unpacked(layer.diff_id)),
        found => Ok(found),
    };
    record.layers.iter().map(open).collect()
}

fn digest_of(layer: &CommittedLayer) -> Digest {
    Digest::from_bytes(*layer.diff_id.as_bytes())
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn manifest(record: &ImageRecord, config_size: usize, layers: &[CommittedLayer]) -> Vec<u8> {
    let describe = |layer: &CommittedLayer| serde_json::json!({"mediaType": LAYER, "digest": digest_of(layer), "size": layer.tar_size});
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": record.id, "size": config_size},
        "layers": layers.iter().map(describe).collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

/// One entry a tag; both keys, because containerd wants whole names and skopeo any that is unique.
fn index(exported: &Exported, manifest_size: usize) -> Vec<u8> {
    let entry = |name: Option<&String>| {
        let mut entry = serde_json::json!(
            {"mediaType": MANIFEST, "digest": exported.manifest, "size": manifest_size});
        if let Some(name) = name {
            entry["annotations"] = serde_json::json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
        }
        entry
    };
    let entries: Vec<_> = match exported.names.as_slice() {
        [] => vec![entry(None)],
        names => names.iter().map(|name| entry(Some(name))).collect(),
    };
    serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes()
}

fn docker_manifest(exported: &Exported, layers: &[CommittedLayer]) -> Vec<u8> {
    let members: Vec<String> = layers.iter().map(|layer| blob(&digest_of(layer))).collect();
    serde_json::json!([{"Config": blob(&exported.id), "RepoTags": exported.names, "Layers": members}])
        .to_string()
        .into_bytes()
}

/// A tar in the making: files of root's, readable by all, of time 0, so that equal images make equal archives.
struct Tar<'a, W> {
    out: &'a mut W,
}

impl<W: Write> Tar<'_, W> {
    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.header(name, content.len() as u64)?;
        self.out.write_all(content).map_err(Error::Write)?;
        self.pad(content.len() as u64)
    }

    fn layer(&mut self, layer: &CommittedLayer, progress: &Progress) -> Result<(), Error> {
        let digest = digest_of(layer);
        let path = layer.path.join(layer::TAR);
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| Error::Read { path, source }
        };
        let mut source = File::open(&path).map_err(failed(&path))?.take(layer.tar_size);
        self.header(&blob(&digest), layer.tar_size)?;
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; BUFFER]);
        loop {
            let length = source.read(&mut buffer).map_err(failed(&path))?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
            self.out.write_all(&buffer[..length]).map_err(Error::Write)?;
            progress.emit(&Event::Fetched { layer: digest, bytes: hasher.bytes() });
        }
        if hasher.bytes() != layer.tar_size || hasher.finish() != digest {
            return Err(Error::Damaged(digest));
        }
        progress.emit(&Event::LayerDone { layer: digest });
        self.pad(layer.tar_size)
    }

    fn header(&mut self, name: &str, size: u64) -> Result<(), Error> {
        self.out.write_all(&header(name, size)).map_err(Error::Write)
    }

    fn pad(&mut self, length: u64) -> Result<(), Error> {
        let missing = length.next_multiple_of(BLOCK as u64) - length;
        self.out.write_all(&[0; BLOCK][..missing as usize]).map_err(Error::Write)
    }

    fn end(&mut self) -> Result<(), Error> {
        self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush()).map_err(Error::Write)
    }
}

/// A ustar header of a regular file; sizes of 8 GiB and more in GNU's base-256.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Event, Walker};

    #[test]
    fn headers_of_small_and_large_files() {
        for size in [0, 1, 511, (1 << 33) - 1, 1 << 33, 1 << 40] {
            let mut walker = Walker::new();
            let block = header("blobs/sha256/x", size);
            let Ok(Some(Event::Entry(entry))) = walker.next(&mut &block[..]) else { panic!("{size}") };
            assert_eq!((entry.path.as_slice(), entry.size), (&b"blobs/sha256/x"[..], size));
        }
    }
}
