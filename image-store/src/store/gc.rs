//! Mark and sweep: what no record and no lease names goes.
//!
//! Roots are the image records, the names, the leases that are held, and what the caller adds (the layers of all
//! containers, exited too). The sweep holds the store alone, so nobody records or leases while it runs; a pull leases
//! before it looks at what is there. Sweeping needs no free space.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Error, Store, file};
use crate::Digest;
use crate::layer::DiffId;

/// What to sweep.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Only report.
    pub dry_run: bool,
    /// Layers to keep though neither record nor lease names them.
    pub keep_layers: Vec<Digest>,
    /// Partial downloads older than this go; younger ones may be continued.
    pub partial_age: Duration,
    /// Also images without a name.
    pub unnamed: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            keep_layers: Vec::new(),
            partial_age: Duration::from_secs(24 * 3600),
            unnamed: false,
        }
    }
}

/// What was, or would be, swept.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct GcReport {
    /// Images that had no name.
    pub images: Vec<Digest>,
    /// Layers by diff-id.
    pub layers: Vec<Digest>,
    /// Manifests and configurations.
    pub blobs: Vec<Digest>,
    /// Partial downloads.
    pub partial_downloads: usize,
    /// Temporary files, leases of dead processes, half-removed layers.
    pub leftovers: usize,
    /// Bytes that the layers and blobs took.
    pub bytes: u64,
    /// Records that could not be read: what they name was not kept.
    pub problems: Vec<String>,
}

#[derive(Default)]
struct Marked {
    blobs: HashSet<Digest>,
    layers: HashSet<DiffId>,
}

impl Store {
    /// Sweeps. Blocking: waits until nobody shares the store.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport, Error> {
        let _guard = self.exclusive()?;
        let mut report = GcReport::default();
        let marked = self.mark(options, &mut report)?;
        self.sweep_layers(options, &marked, &mut report)?;
        self.sweep_blobs(options, &marked, &mut report)?;
        self.sweep_partial(options, &mut report)?;
        self.sweep_leftovers(options, &mut report)?;
        Ok(report)
    }

    /// What an attempt to add an image leaves behind: whole layers are kept for the next one, except on a full disk, where
    /// what nothing else names goes at once.
    pub(crate) fn after_failure(&self, error: &impl crate::error::Kind, layers: &[Digest], blobs: &[Digest]) {
        if error.kind() != crate::error::ErrorKind::Exhausted {
            return;
        }
        if let Err(error) = self.abandon(layers, blobs) {
            tracing::warn!(
                error = crate::error::chain(&error),
                "what a failed pull left stays until the next gc"
            );
        }
    }

    fn abandon(&self, layers: &[Digest], blobs: &[Digest]) -> Result<(), Error> {
        let _guard = self.exclusive()?;
        let marked =
            self.mark(&GcOptions { dry_run: true, ..GcOptions::default() }, &mut GcReport::default())?;
        for layer in layers.iter().map(Digest::to_diff_id).filter(|layer| !marked.layers.contains(layer)) {
            match self.layers().remove(&layer) {
                Err(crate::layer::Error::NotFound { .. }) => {}
                removed => removed?,
            }
        }
        for blob in blobs.iter().filter(|blob| !marked.blobs.contains(blob)) {
            self.unlink(&self.blob_path(blob))?;
        }
        Ok(())
    }

    fn mark(&self, options: &GcOptions, report: &mut GcReport) -> Result<Marked, Error> {
        let mut marked = Marked::default();
        let (references, ref_problems) = self.references()?;
        let (images, image_problems) = self.image_records()?;
        report.problems.extend(ref_problems.iter().chain(&image_problems).map(|e| crate::error::chain(e)));
        let named: HashSet<Digest> = references.iter().map(|r| r.image).collect();
        for image in images {
            if options.unnamed && !named.contains(&image.id) {
                report.images.push(image.id);
                if !options.dry_run {
                    self.unlink(&self.image_path(&image.id))?;
                }
                continue;
            }
            marked.blobs.extend([image.id, image.manifest]);
            marked.layers.extend(image.layers.iter().map(super::LayerRecord::layer));
        }
        marked.blobs.extend(references.iter().flat_map(|r| r.blobs.iter().copied()));
        marked.layers.extend(options.keep_layers.iter().map(Digest::to_diff_id));
        for (path, lease) in self.leases()? {
            match lease {
                Ok(lease) if lease.is_held() => {
                    marked.blobs.extend(lease.blobs);
                    marked.layers.extend(lease.layers.iter().map(Digest::to_diff_id));
                }
                Ok(_) => self.leftover(&path, options, report)?,
                Err(error) => report.problems.push(crate::error::chain(&error)),
            }
        }
        Ok(marked)
    }

    fn sweep_layers(&self, options: &GcOptions, marked: &Marked, report: &mut GcReport) -> Result<(), Error> {
        for layer in self.layers().list()? {
            if marked.layers.contains(&layer) {
                continue;
            }
            report.bytes += self.layers().open(&layer).map_or(0, |committed| committed.disk_bytes);
            report.layers.push(Digest::from_bytes(*layer.as_bytes()));
            if !options.dry_run {
                crate::fault::point("gc.layer")
                    .map_err(|f| Error::io("remove layer below", self.root())(f.into()))?;
                self.layers().remove(&layer)?;
            }
        }
        Ok(())
    }

    fn sweep_blobs(&self, options: &GcOptions, marked: &Marked, report: &mut GcReport) -> Result<(), Error> {
        for blob in self.list_blobs()? {
            if marked.blobs.contains(&blob) {
                continue;
            }
            let path = self.blob_path(&blob);
            report.bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
            report.blobs.push(blob);
            if !options.dry_run {
                self.unlink(&path)?;
            }
        }
        Ok(())
    }

    fn sweep_partial(&self, options: &GcOptions, report: &mut GcReport) -> Result<(), Error> {
        let directory = self.path("ingest");
        for name in file::names(&directory).map_err(Error::io("read", &directory))? {
            let path = directory.join(name);
            if age(&path.join("data")).is_some_and(|age| age < options.partial_age)
                || is_locked(&path.join("lock"))
            {
                continue;
            }
            report.partial_downloads += 1;
            if !options.dry_run {
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn sweep_leftovers(&self, options: &GcOptions, report: &mut GcReport) -> Result<(), Error> {
        for below in ["blobs/sha256", "images", "images/refs", "leases"] {
            let directory = self.path(below);
            for name in file::names(&directory).map_err(Error::io("read", &directory))? {
                if file::is_temporary(&name) {
                    self.leftover(&directory.join(name), options, report)?;
                }
            }
        }
        if !options.dry_run {
            report.leftovers += self.layers().sweep()?;
        }
        Ok(())
    }

    fn leftover(&self, path: &Path, options: &GcOptions, report: &mut GcReport) -> Result<(), Error> {
        report.leftovers += 1;
        if !options.dry_run {
            self.unlink(path)?;
        }
        Ok(())
    }
}

fn age(path: &Path) -> Option<Duration> {
    let changed = fs::metadata(path).ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(changed).unwrap_or_default())
}

fn is_locked(path: &Path) -> bool {
    let Ok(lock) = fs::File::open(path) else { return false };
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}
