//! Images from files: `docker save` archives and OCI layouts, as directories or tars, plain or compressed.
//!
//! The same checks as in a pull: every digest, every size, layers against the configuration, the record last.

mod archive;
mod docker;
mod oci;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::digest::Hasher;
use crate::error::{ErrorKind, Kind};
use crate::manifest::{self, Platform};
use crate::progress::{Event, Progress};
use crate::store::record::{self, ImageRecord, LayerRecord, RefRecord};
use crate::{Digest, Reference, Store, pull, store};

use archive::Archive;

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name for an image that brings none, or instead of the one it brings; only for archives of one image.
    pub name: Option<Reference>,
    /// Another platform than this machine's.
    pub platform: Option<Platform>,
    /// Who listens.
    pub progress: Progress,
}

/// An image that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image's id.
    pub id: Digest,
    /// The names it got.
    pub names: Vec<String>,
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive cannot be read.
    #[error("{action} {}", path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not a tar.
    #[error("archive {}", path.display())]
    Tar {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::tar::Error,
    },
    /// Neither of the formats.
    #[error("{} is neither a docker archive (manifest.json) nor an OCI layout (index.json)", path.display())]
    Format {
        /// Which.
        path: PathBuf,
    },
    /// Something that the archive refers to is missing or wrong.
    #[error("{name} in the archive: {what}")]
    Member {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// `--name` with an archive of several images.
    #[error("the archive has {0} images, one name does not fit")]
    OneName(usize),
    /// A manifest or configuration.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// A name.
    #[error(transparent)]
    Reference(#[from] crate::reference::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] pull::Error),
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::from_io(source),
            Self::Tar { .. } | Self::Format { .. } | Self::OneName(_) => ErrorKind::Invalid,
            Self::Member { .. } => ErrorKind::Corrupt,
            Self::Manifest(error) => error.kind(),
            Self::Reference(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Layer(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Format { .. } => {
                Some("make one with `docker save`, or `skopeo copy … oci-archive:FILE`".into())
            }
            Self::Manifest(error) => error.hint(),
            Self::Reference(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Layer(error) => error.hint(),
            _ => None,
        }
    }
}

/// Imports all images of an archive or directory. Blocking.
pub fn import(store: &Store, path: &Path, options: &ImportOptions) -> Result<Vec<Imported>, Error> {
    let archive = Archive::open(store, path)?;
    let images = if archive.has("index.json") {
        oci::images(&archive, options)?
    } else if archive.has("manifest.json") {
        docker::images(&archive)?
    } else {
        return Err(Error::Format { path: path.to_owned() });
    };
    if options.name.is_some() && images.len() > 1 {
        return Err(Error::OneName(images.len()));
    }
    images.into_iter().map(|image| take(store, &archive, image, options)).collect()
}

/// An image in an archive, checked but for its layers.
struct Found {
    record: ImageRecord,
    /// What its names resolve to.
    digest: Digest,
    documents: Vec<Vec<u8>>,
    names: Vec<String>,
    /// The members that hold the layers, in order.
    members: Vec<String>,
}

fn take(store: &Store, archive: &Archive, found: Found, options: &ImportOptions) -> Result<Imported, Error> {
    let blobs: Vec<Digest> = found.documents.iter().map(|document| Digest::of(document)).collect();
    let diff_ids: Vec<Digest> = found.record.layers.iter().map(|layer| layer.diff_id).collect();
    let lease = store.lease(&blobs, &diff_ids)?;
    let missing: Vec<Digest> =
        diff_ids.into_iter().filter(|id| store.layers().open(&id.to_diff_id()).is_err()).collect();
    let taken = take_all(store, archive, found, options);
    drop(lease);
    taken.inspect_err(|error| store.after_failure(error, &missing, &blobs))
}

fn take_all(
    store: &Store,
    archive: &Archive,
    found: Found,
    options: &ImportOptions,
) -> Result<Imported, Error> {
    let blobs: Vec<Digest> = found.documents.iter().map(|document| Digest::of(document)).collect();
    let layers = found.record.layers.iter().map(|layer| (layer.blob, layer.size)).collect();
    options.progress.emit(&Event::Resolved { digest: found.digest, layers });
    for (layer, member) in found.record.layers.iter().zip(&found.members) {
        take_layer(store, archive, layer, member, &options.progress)?;
    }
    for document in &found.documents {
        store.put_blob(document)?;
    }
    let names = match &options.name {
        Some(name) => name.tagged().into_iter().collect(),
        None => found.names,
    };
    let record = |name: &String| RefRecord {
        version: record::VERSION,
        name: name.clone(),
        image: found.record.id,
        digest: found.digest,
        blobs: blobs.clone(),
        updated: record::now(),
    };
    store.add_image(&found.record, &names.iter().map(record).collect::<Vec<_>>())?;
    Ok(Imported { id: found.record.id, names })
}

fn take_layer(
    store: &Store,
    archive: &Archive,
    layer: &LayerRecord,
    member: &str,
    progress: &Progress,
) -> Result<(), Error> {
    if store.layers().open(&layer.layer()).is_ok() {
        progress.emit(&Event::LayerExists { layer: layer.blob });
        return Ok(());
    }
    let in_layer = |source: pull::Error| pull::Error::InLayer { blob: layer.blob, source: Box::new(source) };
    let mut source = Checked { inner: archive.reader(member)?, hasher: Hasher::default(), layer, progress };
    let mut writer = store.layers().begin(layer.layer()).map_err(|error| in_layer(error.into()))?;
    pull::unpack_into(&mut source, &mut writer, layer.blob, progress).map_err(in_layer)?;
    // A docker archive has no digest of the blob: there it is the diff-id, of a tar that may be compressed.
    let actual = source.hasher.finish();
    if layer.blob != layer.diff_id && actual != layer.blob {
        return Err(in_layer(pull::Error::BlobDigest { actual }).into());
    }
    writer.finish().map_err(|error| in_layer(error.into()))?;
    progress.emit(&Event::LayerDone { layer: layer.blob });
    Ok(())
}

struct Checked<'a> {
    inner: Box<dyn Read>,
    hasher: Hasher,
    layer: &'a LayerRecord,
    progress: &'a Progress,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.progress.emit(&Event::Fetched { layer: self.layer.blob, bytes: self.hasher.bytes() });
        Ok(length)
    }
}
