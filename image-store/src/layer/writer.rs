//! Takes a layer's tar in one pass: digest, back end, parser, model.

use sha2::{Digest, Sha256};

use super::model::{LayerTree, Node, NodeId};
use super::record::Record;
use super::staging::Staging;
use super::store::Layers;
use super::{BackEnd, CommittedLayer, DiffId, Error};
use crate::tar::{Event, Walker};

/// What a back end does with a layer as it comes.
pub(super) trait Sink: Send + std::fmt::Debug {
    /// Takes the tar's own bytes.
    fn tar(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// A file's data begins.
    fn begin_file(&mut self, file: NodeId) -> Result<(), Error>;
    /// Bytes of the current file.
    fn data(&mut self, file_offset: u64, bytes: &[u8]) -> Result<(), Error>;
    /// The current file is complete.
    fn end_file(&mut self, node: &Node) -> Result<(), Error>;
    /// Writes and syncs what is left; gives the number of inodes and the digest that `verify` compares.
    fn finish(self: Box<Self>, tree: &LayerTree, tar_size: u64) -> Result<(u64, DiffId), Error>;
}

/// Takes a layer's uncompressed tar, in order, in pieces of any size. Dropped unfinished it leaves nothing.
#[derive(Debug)]
pub struct LayerWriter {
    layers: Layers,
    expected: DiffId,
    back_end: BackEnd,
    // Dropped before the staging directory, whose removal is to find all files closed.
    sink: Box<dyn Sink>,
    staging: Staging,
    digest: Sha256,
    walker: Walker,
    tree: LayerTree,
    file: Option<NodeId>,
    position: u64,
    failed: bool,
}

impl LayerWriter {
    pub(super) fn new(
        layers: Layers,
        expected: DiffId,
        back_end: BackEnd,
        staging: Staging,
        sink: Box<dyn Sink>,
    ) -> Self {
        Self {
            layers,
            expected,
            back_end,
            sink,
            staging,
            digest: Sha256::new(),
            walker: Walker::new(),
            tree: LayerTree::new(),
            file: None,
            position: 0,
            failed: false,
        }
    }

    /// Takes the next bytes. An error is final: drop the writer.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.failed = true;
        self.digest.update(bytes);
        self.sink.tar(bytes)?;
        self.position += bytes.len() as u64;
        let mut rest = bytes;
        while let Some(event) = self.walker.next(&mut rest)? {
            match event {
                Event::Entry(entry) => {
                    self.file = self.tree.apply(*entry)?;
                    self.file.map_or(Ok(()), |file| self.sink.begin_file(file))?;
                }
                Event::Data { file_offset, bytes } if self.file.is_some() => {
                    self.sink.data(file_offset, bytes)?
                }
                Event::Data { .. } => {}
                Event::FileEnd => {
                    let file = self.file.take();
                    file.map_or(Ok(()), |file| self.sink.end_file(self.tree.node(file)))?;
                }
            }
        }
        self.failed = false;
        Ok(())
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Checks the digest against the diff-id given to `begin`, syncs, and makes the layer visible. When another writer of
    /// the same layer was faster, its layer is the result.
    pub fn finish(mut self) -> Result<CommittedLayer, Error> {
        if self.failed {
            return Err(Error::WriterFailed { diff_id: self.expected });
        }
        let actual = DiffId::from_bytes(self.digest.finalize_reset().into());
        if actual != self.expected {
            return Err(Error::DigestMismatch { expected: self.expected, actual });
        }
        self.walker.finish()?;
        crate::fault::point("layer.index")?;
        let (inodes, digest) = self.sink.finish(&self.tree, self.position)?;
        crate::fault::point("layer.record")?;
        let mut record = Record::new(&self.expected, self.back_end, self.position, inodes, digest);
        record.disk_bytes = super::store::usage_below(self.staging.path())?.bytes;
        record.is_opaque = self.tree.is_opaque();
        record.save(self.staging.path())?;
        self.layers.commit(self.staging, &self.expected)
    }
}

impl std::io::Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LayerWriter::write(self, bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
