//! Image records and their names: add, look up, list, remove.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::record::{self, ImageRecord, RefRecord};
use super::{Error, Store, file};
use crate::{Digest, Reference};

/// An image and all its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's own record.
    pub record: ImageRecord,
    /// Its names, sorted.
    pub references: Vec<RefRecord>,
}

impl Image {
    /// `registry/repository:tag` names.
    #[must_use]
    pub fn repo_tags(&self) -> Vec<String> {
        self.references.iter().filter(|r| !r.name.contains('@')).map(|r| r.name.clone()).collect()
    }

    /// `registry/repository@digest` names.
    #[must_use]
    pub fn repo_digests(&self) -> Vec<String> {
        self.references.iter().filter(|r| r.name.contains('@')).map(|r| r.name.clone()).collect()
    }
}

/// What a removal took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub names: Vec<String>,
    /// The image, when no name was left. Its layers go with the next sweep.
    pub image: Option<Digest>,
}

impl Store {
    /// Records an image and its names, in this order, durable when it returns. All blobs and layers must be there. After
    /// an error no record is there that was not before.
    pub fn add_image(&self, image: &ImageRecord, names: &[RefRecord]) -> Result<(), Error> {
        let _guard = self.share()?;
        let mut made = Vec::new();
        let saved = self.save_image(image, names, &mut made);
        if saved.is_err() {
            for path in made.iter().rev() {
                self.unlink(path)?;
            }
        }
        saved
    }

    fn save_image(
        &self,
        image: &ImageRecord,
        names: &[RefRecord],
        made: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        let mut note = |path: PathBuf| {
            if !path.exists() {
                made.push(path.clone());
            }
            path
        };
        record::save(&note(self.image_path(&image.id)), image)?;
        names.iter().try_for_each(|name| record::save(&note(self.ref_path(&name.name)), name))
    }

    /// Finds an image by name (completed as in a pull), by id, or by the beginning of an id.
    pub fn image(&self, name: &str) -> Result<Image, Error> {
        let id = self.resolve(name)?;
        let record = self.image_record(&id)?.ok_or_else(|| Error::NoSuchImage { name: name.to_owned() })?;
        let references = self.references()?.0.into_iter().filter(|r| r.image == id).collect();
        Ok(Image { record, references })
    }

    /// All images, those without a readable record left out (`fsck` reports them).
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        let (references, _) = self.references()?;
        let (records, _) = self.image_records()?;
        let with_names = |record: ImageRecord| {
            let references = references.iter().filter(|r| r.image == record.id).cloned().collect();
            Image { record, references }
        };
        Ok(records.into_iter().map(with_names).collect())
    }

    /// Removes a name, and the image with its last name. By id, or with `all`, every name of the image goes. Needs no
    /// free space: it only unlinks. The layers go with the next [`Store::gc`].
    pub fn remove_image(&self, name: &str, all: bool) -> Result<Removed, Error> {
        let _guard = self.share()?;
        let image = self.image(name)?;
        let wanted = name.parse::<Reference>().ok();
        let by_id = !image.references.iter().any(|r| wanted.as_ref().is_some_and(|w| names(w, &r.name)));
        let (gone, mut left): (Vec<_>, Vec<_>) = image
            .references
            .into_iter()
            .partition(|r| all || by_id || wanted.as_ref().is_some_and(|w| names(w, &r.name)));
        let mut removed = Removed::default();
        for reference in gone {
            self.unlink(&self.ref_path(&reference.name))?;
            removed.names.push(reference.name);
        }
        // A digest name is made beside each tag; alone it keeps the image only where the digest was what was asked for.
        if left.iter().all(|r| r.name.contains('@')) && !name.contains('@') {
            for reference in left.drain(..) {
                self.unlink(&self.ref_path(&reference.name))?;
                removed.names.push(reference.name);
            }
        }
        if left.is_empty() {
            self.unlink(&self.image_path(&image.record.id))?;
            removed.image = Some(image.record.id);
        }
        Ok(removed)
    }

    /// Bytes that an image takes on disk, what it shares with others included.
    #[must_use]
    pub fn disk_bytes(&self, image: &ImageRecord) -> u64 {
        let unique: BTreeSet<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
        let layer = |id: &Digest| self.layers().open(&id.to_diff_id()).map_or(0, |layer| layer.disk_bytes);
        let blob = |id: &Digest| self.blob_path(id).metadata().map_or(0, |meta| meta.len());
        unique.iter().map(layer).sum::<u64>() + [image.id, image.manifest].iter().map(blob).sum::<u64>()
    }

    /// The names and the problems of reading them.
    pub(super) fn references(&self) -> Result<(Vec<RefRecord>, Vec<Error>), Error> {
        self.records("images/refs")
    }

    /// The images' records and the problems of reading them.
    pub(super) fn image_records(&self) -> Result<(Vec<ImageRecord>, Vec<Error>), Error> {
        self.records("images")
    }

    pub(super) fn image_path(&self, id: &Digest) -> PathBuf {
        self.path("images").join(format!("{}.json", id.hex()))
    }

    pub(super) fn ref_path(&self, name: &str) -> PathBuf {
        self.path("images/refs").join(record::ref_file_name(name))
    }

    fn resolve(&self, name: &str) -> Result<Digest, Error> {
        if let Ok(id) = name.parse::<Digest>() {
            return Ok(id);
        }
        if let Ok(reference) = name.parse::<Reference>() {
            let by_digest = reference.digest().map(|digest| reference.with_digest(&digest));
            for candidate in [by_digest, reference.tagged()].into_iter().flatten() {
                match record::load::<RefRecord>(&self.ref_path(&candidate)) {
                    Ok(found) => return Ok(found.image),
                    Err(error) if is_missing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.by_prefix(name)
    }

    fn by_prefix(&self, name: &str) -> Result<Digest, Error> {
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if prefix.len() < 4 || !prefix.chars().all(hex) {
            return Err(Error::NoSuchImage { name: name.to_owned() });
        }
        let (records, _) = self.image_records()?;
        let found: BTreeSet<Digest> =
            records.iter().map(|r| r.id).filter(|id| id.hex().starts_with(prefix)).collect();
        match (found.len(), found.first()) {
            (1, Some(id)) => Ok(*id),
            (0, _) => Err(Error::NoSuchImage { name: name.to_owned() }),
            (count, _) => Err(Error::Ambiguous { prefix: prefix.to_owned(), count }),
        }
    }

    fn image_record(&self, id: &Digest) -> Result<Option<ImageRecord>, Error> {
        match record::load(&self.image_path(id)) {
            Ok(record) => Ok(Some(record)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn records<T: record::Versioned>(&self, below: &str) -> Result<(Vec<T>, Vec<Error>), Error> {
        let directory = self.path(below);
        let mut records = Vec::new();
        let mut problems = Vec::new();
        for name in file::names(&directory).map_err(Error::io("read", &directory))? {
            if file::is_temporary(&name) || !name.ends_with(".json") {
                continue;
            }
            match record::load(&directory.join(name)) {
                Ok(record) => records.push(record),
                // Removed by somebody else between the listing and the reading.
                Err(error) if is_missing(&error) => {}
                Err(error) => problems.push(error),
            }
        }
        Ok((records, problems))
    }

    pub(super) fn unlink(&self, path: &std::path::Path) -> Result<bool, Error> {
        file::remove_if_there(path).map_err(Error::io("remove", path))
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

fn names(reference: &Reference, name: &str) -> bool {
    match reference.digest() {
        Some(digest) => reference.with_digest(&digest) == name || reference.tagged().as_deref() == Some(name),
        None => reference.tagged().as_deref() == Some(name),
    }
}
