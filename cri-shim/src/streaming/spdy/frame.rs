//! Frames of SPDY/3.1 on the wire.
//!
//! ```text
//! control  1 | version 15 = 3 | type 16 | flags 8 | length 24 | payload
//! data     0 | stream 31                | flags 8 | length 24 | payload
//! ```

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{Compressor, Decompressor, Headers};

/// Most payload of a data frame that is handed on at once; a larger frame comes in pieces.
pub const MAX_DATA: usize = 32 * 1024;

/// Largest control frame.
const MAX_CONTROL: usize = 64 * 1024;

const VERSION: u16 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Entry of SETTINGS: the window that new streams begin with.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    Settings {
        entries: Vec<(u32, u32)>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    Data {
        stream: u32,
        fin: bool,
        bytes: Bytes,
    },
    /// A type that this program does not know; ignored.
    Unknown {
        kind: u16,
    },
}

/// Reads frames.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    headers: Decompressor,
    /// What is left of a data frame: stream, whether it ends the stream, bytes.
    rest: Option<(u32, bool, usize)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(from: R) -> Self {
        Self { from, headers: Decompressor::new(), rest: None }
    }

    /// The next frame; `None` at the end between two frames.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        if let Some((stream, fin, left)) = self.rest.take() {
            return self.data(stream, fin, left).await.map(Some);
        }
        let mut head = [0u8; 8];
        if self.from.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.from.read_exact(&mut head[1..]).await?;
        let [a, b, c, d, flags, l1, l2, l3] = head;
        let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        if a & 0x80 == 0 {
            return self.data(u32::from_be_bytes([a, b, c, d]), flags & FIN != 0, length).await.map(Some);
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != VERSION || length > MAX_CONTROL {
            return Err(invalid(format!("control frame of version {version}, {length} bytes")));
        }
        let mut payload = vec![0u8; length];
        self.from.read_exact(&mut payload).await?;
        self.control(u16::from_be_bytes([c, d]), flags, &payload).map(Some)
    }

    async fn data(&mut self, stream: u32, fin: bool, length: usize) -> io::Result<Frame> {
        let now = length.min(MAX_DATA);
        let mut bytes = vec![0u8; now];
        self.from.read_exact(&mut bytes).await?;
        let last = now == length;
        if !last {
            self.rest = Some((stream, fin, length - now));
        }
        Ok(Frame::Data { stream, fin: fin && last, bytes: bytes.into() })
    }

    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> io::Result<Frame> {
        let word = |at: usize| -> io::Result<u32> {
            let bytes = payload.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
            bytes.map(u32::from_be_bytes).ok_or_else(|| invalid(format!("frame of type {kind} is cut")))
        };
        let id = |at| word(at).map(|w| w & 0x7fff_ffff);
        let block = |at: usize| payload.get(at..).unwrap_or_default();
        let fin = flags & FIN != 0;
        Ok(match kind {
            SYN_STREAM => {
                // Ten bytes of ids, priority and slot, of which only the stream's id counts here.
                word(6)?;
                Frame::SynStream { stream: id(0)?, fin, headers: self.headers.decompress(block(10))? }
            }
            SYN_REPLY => Frame::SynReply { stream: id(0)?, fin, headers: self.headers.decompress(block(4))? },
            HEADERS => Frame::Headers { stream: id(0)?, fin, headers: self.headers.decompress(block(4))? },
            RST_STREAM => Frame::RstStream { stream: id(0)?, status: word(4)? },
            SETTINGS => {
                let count = word(0)? as usize;
                if count > payload.len() / 8 {
                    return Err(invalid("SETTINGS is cut".into()));
                }
                let entry = |n: usize| Ok((word(4 + n * 8)? & 0x00ff_ffff, word(8 + n * 8)?));
                Frame::Settings { entries: (0..count).map(entry).collect::<io::Result<_>>()? }
            }
            PING => Frame::Ping { id: word(0)? },
            GOAWAY => Frame::GoAway { last: id(0)?, status: word(4)? },
            WINDOW_UPDATE => Frame::WindowUpdate { stream: id(0)?, delta: id(4)? },
            kind => Frame::Unknown { kind },
        })
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct Encoder {
    headers: Compressor,
}

impl Encoder {
    pub fn new() -> io::Result<Self> {
        Ok(Self { headers: Compressor::new()? })
    }

    pub fn encode(&mut self, frame: &Frame) -> io::Result<Vec<u8>> {
        let words = |list: &[u32]| list.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
        Ok(match frame {
            Frame::SynStream { stream, fin, headers } => {
                let mut payload = words(&[*stream, 0]);
                payload.extend_from_slice(&[0, 0]);
                payload.extend(self.headers.compress(headers)?);
                control(SYN_STREAM, *fin, &payload)
            }
            Frame::SynReply { stream, fin, headers } => self.block(SYN_REPLY, *stream, *fin, headers)?,
            Frame::Headers { stream, fin, headers } => self.block(HEADERS, *stream, *fin, headers)?,
            Frame::RstStream { stream, status } => control(RST_STREAM, false, &words(&[*stream, *status])),
            Frame::Settings { entries } => {
                let mut payload = words(&[u32::try_from(entries.len()).unwrap_or_default()]);
                payload.extend(entries.iter().flat_map(|(id, value)| words(&[*id, *value])));
                control(SETTINGS, false, &payload)
            }
            Frame::Ping { id } => control(PING, false, &words(&[*id])),
            Frame::GoAway { last, status } => control(GOAWAY, false, &words(&[*last, *status])),
            Frame::WindowUpdate { stream, delta } => {
                control(WINDOW_UPDATE, false, &words(&[*stream, *delta]))
            }
            Frame::Data { stream, fin, bytes } => {
                let mut out = words(&[stream & 0x7fff_ffff, length_word(*fin, bytes.len())]);
                out.extend_from_slice(bytes);
                out
            }
            Frame::Unknown { .. } => Vec::new(),
        })
    }

    fn block(&mut self, kind: u16, stream: u32, fin: bool, headers: &Headers) -> io::Result<Vec<u8>> {
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend(self.headers.compress(headers)?);
        Ok(control(kind, fin, &payload))
    }
}

fn control(kind: u16, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = (0x8000 | VERSION).to_be_bytes().to_vec();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length_word(fin, payload.len()).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

fn length_word(fin: bool, length: usize) -> u32 {
    u32::from(if fin { FIN } else { 0 }) << 24 | (u32::try_from(length).unwrap_or_default() & 0x00ff_ffff)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> io::Result<Vec<Frame>> {
        let mut reader = Reader::new(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Written by hand after the draft: what each field is, not what this code makes of it.
    #[tokio::test]
    async fn fixed_bytes_are_these_frames() {
        let data = Frame::Data { stream: 5, fin: true, bytes: Bytes::from_static(b"hi") };
        let table: [(&[u8], Frame); 6] = [
            (&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], Frame::Ping { id: 1 }),
            (&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 5], Frame::RstStream { stream: 7, status: 5 }),
            (&[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0], Frame::GoAway { last: 9, status: 0 }),
            (
                &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 1, 0, 0],
                Frame::WindowUpdate { stream: 1, delta: 65_536 },
            ),
            (
                &[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0x10, 0],
                Frame::Settings { entries: vec![(7, 4096)] },
            ),
            (&[0, 0, 0, 5, 1, 0, 0, 2, b'h', b'i'], data),
        ];
        for (bytes, frame) in table {
            assert_eq!(read_all(bytes).await.expect("frame"), std::slice::from_ref(&frame));
            assert_eq!(Encoder::new().expect("encoder").encode(&frame).expect("bytes"), bytes);
        }
    }

    /// A SYN_STREAM as any zlib makes it: stored blocks instead of compressed ones, the dictionary named.
    #[tokio::test]
    async fn a_stream_is_opened_by_stored_bytes() {
        let mut plain = vec![0, 0, 0, 1, 0, 0, 0, 10];
        plain.extend_from_slice(b"streamtype\0\0\0\x05error");
        let length = u16::try_from(plain.len()).expect("short");
        let mut block = vec![0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2, 0];
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&(!length).to_le_bytes());
        block.extend_from_slice(&plain);
        let mut bytes = vec![0x80, 3, 0, 1, 0, 0, 0, u8::try_from(10 + block.len()).expect("short")];
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&block);
        let headers = Headers(vec![("streamtype".into(), "error".into())]);
        let expected = [Frame::SynStream { stream: 1, fin: false, headers }];
        assert_eq!(read_all(&bytes).await.expect("frame"), expected);
    }

    #[tokio::test]
    async fn frames_come_back_and_large_ones_in_pieces() {
        let headers = Headers(vec![("port".into(), "80".into())]);
        let frames = [
            Frame::SynStream { stream: 1, fin: false, headers: headers.clone() },
            Frame::SynReply { stream: 1, fin: false, headers: Headers::default() },
            Frame::Headers { stream: 1, fin: true, headers },
        ];
        let mut encoder = Encoder::new().expect("encoder");
        let mut bytes: Vec<u8> = frames.iter().flat_map(|f| encoder.encode(f).expect("bytes")).collect();
        let large = Frame::Data { stream: 3, fin: true, bytes: vec![7; 70_000].into() };
        bytes.extend(encoder.encode(&large).expect("bytes"));
        let read = read_all(&bytes).await.expect("frames");
        assert_eq!(read[..3], frames);
        let pieces: Vec<_> = read[3..]
            .iter()
            .map(|f| match f {
                Frame::Data { stream: 3, fin, bytes } => (*fin, bytes.len()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pieces, [(false, 32_768), (false, 32_768), (true, 4464)]);
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(work)
    }

    proptest::proptest! {
        /// Whatever comes, it is a frame or an error.
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), kind in 0u8..12) {
            let mut framed = vec![0x80, 3, 0, kind, 0, 0, 0, u8::try_from(bytes.len().min(255)).unwrap_or(0)];
            framed.extend_from_slice(&bytes);
            let _ = block_on(read_all(&framed));
            let _ = block_on(read_all(&bytes));
        }

        #[test]
        fn any_frame_comes_back(stream in 1u32..0x7fff_ffff, words in proptest::collection::vec(("[a-z]{1,20}", "[ -~]{0,40}"), 0..6), bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let frames = [
                Frame::SynStream { stream, fin: true, headers: Headers(words.clone()) },
                Frame::Headers { stream, fin: false, headers: Headers(words) },
                Frame::Data { stream, fin: false, bytes: bytes.into() },
                Frame::WindowUpdate { stream, delta: stream },
            ];
            let mut encoder = Encoder::new().expect("encoder");
            let wire: Vec<u8> = frames.iter().flat_map(|f| encoder.encode(f).expect("bytes")).collect();
            assert_eq!(block_on(read_all(&wire)).expect("frames"), frames);
        }
    }

    #[tokio::test]
    async fn what_is_no_spdy_is_an_error() {
        let table: [&[u8]; 5] = [
            &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1],
            &[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0],
            &[0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff],
            &[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
            &[0x80, 3],
        ];
        for bytes in table {
            assert!(read_all(bytes).await.is_err(), "{bytes:?}");
        }
    }
}
