//! The disk's half of a layer, on a thread of its own: digest, decompress, and write the tar into the layer store.
//!
//! The bytes kept by an earlier attempt come first, then those of the channel. The digest and size of the blob are
//! checked before the layer is committed; its diff-id is checked by the layer store.

use std::fs::File;
use std::io::{self, BufReader, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Error;
use super::fetch::Piece;
use super::ingest::Ingest;
use crate::digest::Hasher;
use crate::layer::{CommittedLayer, LayerWriter};
use crate::manifest::Compression;
use crate::progress::{Event, Progress};
use crate::store::LayerRecord;
use crate::{Digest, Store};

const BUFFER: usize = 256 << 10;

/// Unpacks one layer from the kept bytes and the channel; `committed` is what the store says then.
pub(super) fn unpack(
    store: &Store,
    layer: &LayerRecord,
    ingest: &mut Ingest,
    pieces: mpsc::Receiver<Piece>,
    progress: &Progress,
) -> Result<CommittedLayer, Error> {
    crate::fault::point("pull.layer.begin")?;
    let mut source = Source::new(layer, ingest, pieces)?;
    let mut writer = store.layers().begin(layer.layer())?;
    let copied = copy(&mut source, &mut writer, layer.blob, progress);
    // The reason why the source failed is worth more than what the decoder made of it.
    let copied = source.failure.take().map_or(copied, Err);
    copied?;
    source.check_whole(layer)?;
    crate::fault::point("pull.layer.commit")?;
    Ok(writer.finish()?)
}

/// Decompresses `source` into `writer`, and reads the source to its end.
pub(crate) fn copy(
    source: &mut impl Read,
    writer: &mut LayerWriter,
    blob: Digest,
    progress: &Progress,
) -> Result<(), Error> {
    let mut source = BufReader::with_capacity(BUFFER, source);
    let decompress = |source| Error::Decompress { source };
    let compression = Compression::detect(peek(&mut source).map_err(decompress)?);
    match compression {
        Compression::None => pump(&mut source, writer, blob, progress)?,
        Compression::Gzip => {
            pump(&mut flate2::bufread::MultiGzDecoder::new(&mut source), writer, blob, progress)?
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut source).map_err(decompress)?;
            // 128 MiB of window is what the format's own tools accept; more is an attack on memory.
            decoder.window_log_max(27).map_err(decompress)?;
            pump(&mut decoder, writer, blob, progress)?;
        }
    }
    // What follows the compressed stream belongs to the blob, and so to its digest.
    io::copy(&mut source, &mut io::sink()).map_err(decompress)?;
    Ok(())
}

fn peek<R: Read>(source: &mut BufReader<R>) -> io::Result<&[u8]> {
    io::BufRead::fill_buf(source)
}

fn pump(
    source: &mut impl Read,
    writer: &mut LayerWriter,
    blob: Digest,
    progress: &Progress,
) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(Error::Decompress { source }),
        };
        writer.write(&buffer[..length])?;
        total += length as u64;
        progress.emit(&Event::Unpacked { layer: blob, bytes: total });
    }
}

/// The compressed bytes in order, hashed and counted on the way.
struct Source<'a> {
    kept: Option<io::Take<File>>,
    ingest: &'a mut Ingest,
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
    hasher: Hasher,
    size: u64,
    failure: Option<Error>,
}

impl<'a> Source<'a> {
    fn new(
        layer: &LayerRecord,
        ingest: &'a mut Ingest,
        pieces: mpsc::Receiver<Piece>,
    ) -> Result<Self, Error> {
        let kept = ingest.open_kept()?.map(|file| file.take(ingest.length));
        Ok(Self {
            kept,
            ingest,
            pieces,
            current: Bytes::new(),
            ended: false,
            hasher: Hasher::default(),
            size: layer.size,
            failure: None,
        })
    }

    fn check_whole(self, layer: &LayerRecord) -> Result<(), Error> {
        if self.hasher.bytes() != layer.size {
            return Err(Error::BlobSize { expected: layer.size, actual: self.hasher.bytes() });
        }
        let actual = self.hasher.finish();
        if actual != layer.blob {
            return Err(Error::BlobDigest { actual });
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) -> io::Error {
        self.failure = Some(error);
        io::Error::other("the source ended early")
    }

    fn read_kept(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(kept) = &mut self.kept else { return Ok(0) };
        let length = kept.read(buffer)?;
        if length == 0 {
            self.kept = None;
        }
        Ok(length)
    }

    fn next_piece(&mut self) -> io::Result<()> {
        match self.pieces.blocking_recv() {
            None => return Err(self.fail(Error::Interrupted)),
            Some(Piece::End) => self.ended = true,
            Some(Piece::Data(bytes)) => {
                let total = self.hasher.bytes() + bytes.len() as u64;
                if total > self.size {
                    return Err(self.fail(Error::BlobSize { expected: self.size, actual: total }));
                }
                if let Err(fault) = crate::fault::point("pull.layer.piece") {
                    return Err(self.fail(fault.into()));
                }
                self.ingest.keep(&bytes);
                self.current = bytes;
            }
        }
        Ok(())
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.read_kept(buffer)?;
        if length > 0 {
            self.hasher.update(&buffer[..length]);
            return Ok(length);
        }
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            self.next_piece()?;
        }
        let length = buffer.len().min(self.current.len());
        let piece = self.current.split_to(length);
        self.hasher.update(&piece);
        buffer[..length].copy_from_slice(&piece);
        Ok(length)
    }
}
