//! An image's layers as one tree.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Error, layers_of};
use crate::layer::LayerMount;
use crate::mount::{self, Lower, OverlayOptions};
use crate::store::ImageRecord;
use crate::{Store, layer};

/// An image's tree, mounted but attached nowhere; gone when it is dropped (where nobody attached it).
#[derive(Debug)]
pub struct MountedImage {
    mount: Option<OwnedFd>,
    layers: Vec<Arc<LayerMount>>,
    path: PathBuf,
}

impl MountedImage {
    /// A path that leads to the tree's root in this process while the value lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Attaches the tree at a directory of this mount namespace.
    pub fn attach(&self, target: &Path) -> Result<(), Error> {
        match (&self.mount, self.layers.first()) {
            (Some(mount), _) => Ok(mount::attach(mount.as_fd(), target)?),
            // The layer's own mount is shared by everybody who uses the layer: a clone of it is attached.
            (None, Some(layer)) => {
                let clone = mount::clone_mount(layer.as_fd()).map_err(|errno| mount::Error::Attach {
                    target: target.to_owned(),
                    source: errno.into(),
                })?;
                Ok(mount::attach(clone.as_fd(), target)?)
            }
            (None, None) => Ok(()),
        }
    }

    fn new(mount: Option<OwnedFd>, layers: Vec<Arc<LayerMount>>) -> Self {
        let raw = mount
            .as_ref()
            .map_or_else(|| layers.first().map_or(-1, |l| l.as_fd().as_raw_fd()), OwnedFd::as_raw_fd);
        Self { mount, layers, path: PathBuf::from(format!("/proc/self/fd/{raw}")) }
    }
}

/// Mounts the image read-only.
pub fn mount_read_only(store: &Store, image: &ImageRecord) -> Result<MountedImage, Error> {
    let layers = mount_layers(store, image)?;
    if layers.len() < 2 {
        return Ok(MountedImage::new(None, layers));
    }
    let overlay = mount::overlay(&lowers(&layers), None, &OverlayOptions::default())?;
    Ok(MountedImage::new(Some(overlay), layers))
}

/// Mounts the image with a layer on top that takes what is written. `upper` and `work` must be on one file system.
pub fn mount_writable(
    store: &Store,
    image: &ImageRecord,
    upper: &Path,
    work: &Path,
    volatile: bool,
) -> Result<MountedImage, Error> {
    mount_writable_with(store, image, upper, work, &OverlayOptions { volatile, ..OverlayOptions::default() })
}

/// The same with other options of the overlay: ids of the layers mapped, a label.
pub fn mount_writable_with(
    store: &Store,
    image: &ImageRecord,
    upper: &Path,
    work: &Path,
    options: &OverlayOptions<'_>,
) -> Result<MountedImage, Error> {
    let layers = mount_layers(store, image)?;
    let overlay = mount::overlay(&lowers(&layers), Some((upper, work)), options)?;
    Ok(MountedImage::new(Some(overlay), layers))
}

fn lowers(layers: &[Arc<LayerMount>]) -> Vec<Lower<'_>> {
    layers.iter().map(|layer| Lower::Fd(layer.as_fd())).collect()
}

// From the uppermost to the lowest. A layer that occurs twice counts where it is uppermost: overlayfs refuses one lower
// twice, and the lower occurrence is hidden but for names that layers between them deleted, which the upper one restores.
fn mount_layers(store: &Store, image: &ImageRecord) -> Result<Vec<Arc<LayerMount>>, layer::Error> {
    let mut seen = std::collections::HashSet::new();
    let ids: Vec<_> = layers_of(image).into_iter().rev().filter(|id| seen.insert(*id)).collect();
    ids.iter().map(|id| store.layers().mount(id)).collect()
}
