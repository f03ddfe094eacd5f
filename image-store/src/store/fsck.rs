//! Verification of everything in the store, and repair by dropping what is damaged.
//!
//! Repair never mends content: a bad layer is removed and so are the records of the images that need it, and the report
//! names what to pull again. Layers that are whole stay, so that a new pull fetches only what was bad.

use std::collections::{BTreeMap, BTreeSet};

use super::{Error, Guard, Store, file};
use crate::Digest;
use crate::error::chain;
use crate::layer::DiffId;

/// What to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct FsckOptions {
    /// Drop what is damaged.
    pub repair: bool,
    /// Only look at records and presence; do not read layers.
    pub quick: bool,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// `blob`, `layer`, `image`, `reference`, `lease`.
    pub object: &'static str,
    /// Its digest or name.
    pub name: String,
    /// What is wrong.
    pub problem: String,
    /// What was done about it, with `repair`.
    pub repaired: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct FsckReport {
    /// Everything that is wrong; empty for a store that is whole.
    pub findings: Vec<Finding>,
    /// Names to pull again after a repair.
    pub pull_again: Vec<String>,
    /// Blobs read.
    pub blobs: usize,
    /// Layers checked.
    pub layers: usize,
    /// Images checked.
    pub images: usize,
    /// Harmless remains of interrupted work, which the next sweep takes: temporary files, leases of dead processes.
    pub leftovers: usize,
}

impl FsckReport {
    /// Whether nothing is wrong, or nothing any more.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.repaired)
    }
}

struct Check<'a> {
    store: &'a Store,
    options: FsckOptions,
    report: FsckReport,
    bad_layers: BTreeSet<DiffId>,
    good_layers: BTreeSet<DiffId>,
    bad_blobs: BTreeSet<Digest>,
    good_blobs: BTreeSet<Digest>,
}

impl Store {
    /// Checks the store. Blocking; with `repair` it waits until nobody shares the store.
    pub fn fsck(&self, options: FsckOptions) -> Result<FsckReport, Error> {
        let _guard: Guard = if options.repair { self.exclusive()? } else { self.share()? };
        let mut check = Check {
            store: self,
            options,
            report: FsckReport::default(),
            bad_layers: BTreeSet::new(),
            good_layers: BTreeSet::new(),
            bad_blobs: BTreeSet::new(),
            good_blobs: BTreeSet::new(),
        };
        check.blobs()?;
        check.layers()?;
        check.records()?;
        check.leftovers()?;
        Ok(check.report)
    }
}

impl Check<'_> {
    fn found(&mut self, object: &'static str, name: String, problem: String) {
        let repaired = self.options.repair;
        self.report.findings.push(Finding { object, name, problem, repaired });
    }

    fn blobs(&mut self) -> Result<(), Error> {
        for digest in self.store.list_blobs()? {
            self.report.blobs += 1;
            match self.store.blob(&digest) {
                Ok(_) => drop(self.good_blobs.insert(digest)),
                Err(error) => {
                    self.bad_blobs.insert(digest);
                    self.found("blob", digest.to_string(), chain(&error));
                    if self.options.repair {
                        self.store.unlink(&self.store.blob_path(&digest))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<(), Error> {
        for diff_id in self.store.layers().list()? {
            self.report.layers += 1;
            let result = match self.store.layers().open(&diff_id) {
                Ok(_) if !self.options.quick => self.store.layers().verify(&diff_id),
                opened => opened.map(drop),
            };
            match result {
                Ok(()) => drop(self.good_layers.insert(diff_id)),
                Err(error) => {
                    self.bad_layers.insert(diff_id);
                    self.found("layer", diff_id.to_string(), chain(&error));
                    if self.options.repair {
                        self.store.layers().remove(&diff_id)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn records(&mut self) -> Result<(), Error> {
        let (references, ref_problems) = self.store.references()?;
        let (images, image_problems) = self.store.image_records()?;
        for problem in ref_problems {
            self.unreadable("reference", &problem)?;
        }
        for problem in image_problems {
            self.unreadable("image", &problem)?;
        }
        let mut broken: BTreeMap<Digest, String> = BTreeMap::new();
        let mut whole = BTreeSet::new();
        for image in &images {
            self.report.images += 1;
            match self.image_problem(image) {
                None => drop(whole.insert(image.id)),
                Some(problem) => drop(broken.insert(image.id, problem)),
            }
        }
        for (id, problem) in broken {
            self.found("image", id.to_string(), problem);
            if self.options.repair {
                self.store.unlink(&self.store.image_path(&id))?;
            }
        }
        for reference in references {
            let lost = reference.blobs.iter().find(|blob| !self.good_blobs.contains(blob)).copied();
            let problem = match lost {
                _ if !whole.contains(&reference.image) => {
                    format!("its image {} is missing or damaged", reference.image)
                }
                Some(blob) => format!("blob {blob} is missing or damaged"),
                None => continue,
            };
            self.found("reference", reference.name.clone(), problem);
            if self.options.repair {
                self.store.unlink(&self.store.ref_path(&reference.name))?;
                self.report.pull_again.push(reference.name);
            }
        }
        Ok(())
    }

    fn image_problem(&self, image: &super::ImageRecord) -> Option<String> {
        if let Some(blob) = [image.id, image.manifest].iter().find(|blob| !self.good_blobs.contains(blob)) {
            return Some(format!("blob {blob} is missing or damaged"));
        }
        let lost = image.layers.iter().find(|layer| !self.good_layers.contains(&layer.layer()))?;
        Some(format!("layer {} is missing or damaged", lost.diff_id))
    }

    fn unreadable(&mut self, object: &'static str, problem: &Error) -> Result<(), Error> {
        let (Error::Record { path, .. } | Error::Io { path, .. }) = problem else { return Ok(()) };
        let path = path.clone();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.found(object, name, chain(problem));
        if self.options.repair {
            self.store.unlink(&path)?;
        }
        Ok(())
    }

    fn leftovers(&mut self) -> Result<(), Error> {
        for below in ["blobs/sha256", "images", "images/refs", "leases"] {
            let directory = self.store.path(below);
            let names = file::names(&directory).map_err(Error::io("read", &directory))?;
            self.report.leftovers += names.iter().filter(|name| file::is_temporary(name)).count();
        }
        for (path, lease) in self.store.leases()? {
            match lease {
                Ok(lease) => self.report.leftovers += usize::from(!lease.is_held()),
                Err(problem) => {
                    tracing::debug!(path = %path.display(), "unreadable lease");
                    self.unreadable("lease", &problem)?;
                }
            }
        }
        Ok(())
    }
}
