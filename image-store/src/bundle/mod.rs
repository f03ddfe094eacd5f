//! OCI bundles from images: the configuration that an image asks for, and its root file system as mounts or as files.
//!
//! `process` and `spec` are pure; `user` reads the image's own passwd and group files, by handle and bounded; `rootfs`
//! mounts the layers; `copy` makes real files of what is mounted.

mod copy;
mod error;
mod process;
mod rootfs;
mod spec;
mod user;

use std::path::Path;

pub use copy::copy_tree;
pub use error::Error;
pub use process::{Process, ProcessOptions, process};
pub use rootfs::{MountedImage, mount_read_only, mount_writable, mount_writable_with};
pub use spec::{SpecOptions, spec};
pub use user::{User, look_up as look_up_user};

use crate::store::{Image, file};
use crate::{Store, layer};

/// Makes a bundle: `config.json` and `rootfs/` as real files. `directory` must not exist, or be empty. Needs the
/// privilege to mount.
pub fn unpack(store: &Store, image: &Image, directory: &Path, options: &ProcessOptions) -> Result<(), Error> {
    let diff_ids: Vec<_> = image.record.layers.iter().map(|layer| layer.diff_id).collect();
    let _lease = store.lease(&[image.record.id, image.record.manifest], &diff_ids)?;
    std::fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    let mut entries = std::fs::read_dir(directory).map_err(Error::io("read", directory))?;
    if entries.next().is_some() {
        return Err(Error::NotEmpty { path: directory.to_owned() });
    }
    let rootfs = directory.join("rootfs");
    std::fs::create_dir(&rootfs).map_err(Error::io("create directory", &rootfs))?;
    let mounted = mount_read_only(store, &image.record)?;
    copy_tree(mounted.path(), &rootfs)?;
    let config = store.config(&image.record.id)?;
    let process = process(&config, &rootfs, options)?;
    write_config(directory, &spec(&process, &SpecOptions::default()))
}

/// Writes a bundle's `config.json`.
pub fn write_config(bundle: &Path, spec: &serde_json::Value) -> Result<(), Error> {
    let path = bundle.join("config.json");
    let content = format!("{spec:#}\n");
    file::replace(&path, content.as_bytes()).map_err(Error::io("write", &path))
}

fn layers_of(image: &crate::store::ImageRecord) -> Vec<layer::DiffId> {
    image.layers.iter().map(crate::store::LayerRecord::layer).collect()
}
