//! The EROFS back end: the tar as it came, and an index that the kernel mounts over it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::model::{LayerTree, Node, NodeId};
use super::staging::Staging;
use super::store::{Layers, impl_layer_store};
use super::writer::Sink;
use super::{BackEnd, Backing, DiffId, Error, LayerWriter};
use crate::{erofs, tar};

pub(crate) const TAR: &str = "layer.tar";
pub(super) const INDEX: &str = "index.erofs";

/// Stores new layers as `layer.tar` and `index.erofs`.
#[derive(Debug)]
pub struct ErofsLayers(Layers);

impl ErofsLayers {
    /// Opens the store at `<root>/layers` without asking whether this kernel can mount what it writes.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Layers::open(root).map(Self)
    }

    /// Opens the store and mounts its layers this way, whatever the kernel's release is.
    pub fn with_backing(root: &Path, backing: Backing) -> Result<Self, Error> {
        Layers::open(root).map(|layers| Self(layers.with_backing(backing)))
    }

    /// The same layers, written by this back end.
    pub(super) const fn of(layers: Layers) -> Self {
        Self(layers)
    }

    pub(super) fn new_writer(&self, diff_id: DiffId) -> Result<LayerWriter, Error> {
        let staging = Staging::create(self.0.path(), &diff_id)?;
        let sink = TarAndIndex::create(staging.path(), &diff_id)?;
        Ok(LayerWriter::new(self.0.clone(), diff_id, BackEnd::Erofs, staging, Box::new(sink)))
    }
}

impl_layer_store!(ErofsLayers);

#[derive(Debug)]
struct TarAndIndex {
    tar: BufWriter<File>,
    tar_path: PathBuf,
    index_path: PathBuf,
    uuid: [u8; 16],
}

impl TarAndIndex {
    fn create(directory: &Path, diff_id: &DiffId) -> Result<Self, Error> {
        let tar_path = directory.join(TAR);
        let options = File::options().read(true).write(true).create_new(true).to_owned();
        let tar = options.open(&tar_path).map_err(Error::io("create", &tar_path))?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&diff_id.as_bytes()[..16]);
        // Small pieces are gathered; larger ones pass by the buffer.
        Ok(Self {
            tar: BufWriter::with_capacity(256 << 10, tar),
            tar_path,
            index_path: directory.join(INDEX),
            uuid,
        })
    }

    fn write_index(&self, tar: &File, tree: &LayerTree, tar_size: u64) -> Result<(u64, DiffId), Error> {
        let path = &self.index_path;
        let file = File::create_new(path).map_err(Error::io("create", path))?;
        let mut out = Hashed { inner: BufWriter::with_capacity(256 << 10, file), digest: Sha256::new() };
        let read_tar = |offset, buffer: &mut [u8]| read_or_zeros(tar, offset, buffer);
        let index = erofs::write(tree, tar_size, self.uuid, &mut out, &read_tar, &|error| {
            Error::io("write", path)(error)
        })?;
        out.inner.flush().map_err(Error::io("write", path))?;
        out.inner.get_ref().sync_all().map_err(Error::io("sync", path))?;
        Ok((index.inodes, DiffId::from_bytes(out.digest.finalize().into())))
    }
}

impl Sink for TarAndIndex {
    fn tar(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.tar.write_all(bytes).map_err(Error::io("write", &self.tar_path))
    }

    fn begin_file(&mut self, _file: NodeId) -> Result<(), Error> {
        Ok(())
    }

    fn data(&mut self, _file_offset: u64, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn end_file(&mut self, _node: &Node) -> Result<(), Error> {
        Ok(())
    }

    fn finish(mut self: Box<Self>, tree: &LayerTree, tar_size: u64) -> Result<(u64, DiffId), Error> {
        self.tar.flush().map_err(Error::io("write", &self.tar_path))?;
        let written = self.write_index(self.tar.get_ref(), tree, tar_size)?;
        crate::fault::point("layer.sync")?;
        // An archive may end without padding; the kernel refuses to read a block that is not there.
        let padded = tar_size.next_multiple_of(tar::BLOCK as u64);
        self.tar.get_ref().set_len(padded).map_err(Error::io("pad", &self.tar_path))?;
        self.tar.get_ref().sync_all().map_err(Error::io("sync", &self.tar_path))?;
        Ok(written)
    }
}

fn read_or_zeros(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset)? {
            0 => {
                buffer.fill(0);
                return Ok(());
            }
            length => {
                offset += length as u64;
                buffer = &mut buffer[length..];
            }
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Hashed<W> {
    inner: W,
    digest: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.digest.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
