//! Header blocks: name and value pairs, compressed over the life of the connection in each direction.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary;

/// Largest block after decompression.
const MAX_BLOCK: usize = 64 * 1024;

/// Names in lower case with their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a name, whatever its case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        value.split('\0').next()
    }
}

/// Compresses the blocks of one direction.
#[derive(Debug)]
pub struct Compressor(Compress);

/// Decompresses the blocks of one direction.
#[derive(Debug)]
pub struct Decompressor(Decompress);

impl Compressor {
    pub fn new() -> io::Result<Self> {
        let mut state = Compress::new(Compression::default(), true);
        state.set_dictionary(&dictionary::bytes())?;
        Ok(Self(state))
    }

    pub fn compress(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let plain = render(headers);
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let consumed = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            self.0.compress_vec(&plain[consumed.min(plain.len())..], &mut out, FlushCompress::Sync)?;
            // A flush is complete once it leaves room.
            if out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

impl Decompressor {
    #[must_use]
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub fn decompress(&mut self, block: &[u8]) -> io::Result<Headers> {
        let mut plain = Vec::new();
        let start = self.0.total_in();
        loop {
            let consumed = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let rest = &block[consumed.min(block.len())..];
            plain.reserve(4096);
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary::bytes())?;
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            if plain.len() > MAX_BLOCK {
                return Err(invalid("header block is too large"));
            }
            if plain.len() < plain.capacity() {
                return parse(&plain);
            }
        }
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

fn render(headers: &Headers) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, n: usize| {
        out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes());
    };
    number(&mut out, headers.0.len());
    for (name, value) in &headers.0 {
        for text in [name.to_ascii_lowercase().as_str(), value] {
            number(&mut out, text.len());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn parse(mut block: &[u8]) -> io::Result<Headers> {
    let count = number(&mut block)?;
    let mut headers = Headers::default();
    for _ in 0..count {
        headers.0.push((text(&mut block)?, text(&mut block)?));
    }
    Ok(headers)
}

fn number(block: &mut &[u8]) -> io::Result<usize> {
    let (first, rest) = block.split_first_chunk::<4>().ok_or_else(|| invalid("header block is cut"))?;
    *block = rest;
    usize::try_from(u32::from_be_bytes(*first)).map_err(|_| invalid("header is too long"))
}

fn text(block: &mut &[u8]) -> io::Result<String> {
    let length = number(block)?;
    let (first, rest) = block.split_at_checked(length).ok_or_else(|| invalid("header block is cut"))?;
    *block = rest;
    String::from_utf8(first.to_vec()).map_err(|_| invalid("header is not UTF-8"))
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
    }

    #[test]
    fn blocks_of_a_connection_come_back_in_order() {
        let (mut out, mut back) = (Compressor::new().expect("state"), Decompressor::new());
        for n in 0..50 {
            let sent = headers(&[("streamtype", "stdin"), ("port", &n.to_string()), ("requestid", "7")]);
            let block = out.compress(&sent).expect("compressed");
            if n == 0 {
                // zlib header with FDICT, then the dictionary's Adler-32.
                assert_eq!(
                    (block[0] & 0x0f, block[1] & 0x20, &block[2..6]),
                    (8, 0x20, &[0xe3, 0xc6, 0xa7, 0xc2][..])
                );
            }
            assert_eq!(back.decompress(&block).expect("block"), sent);
        }
    }

    #[test]
    fn a_bomb_and_a_cut_block_are_refused() {
        let mut out = Compressor::new().expect("state");
        let block = out.compress(&headers(&[("a", &"x".repeat(100_000))])).expect("compressed");
        assert!(block.len() < 2000);
        assert!(Decompressor::new().decompress(&block).is_err());
        assert!(parse(&[0, 0, 0, 2, 0, 0, 0, 1, b'a']).is_err());
        assert!(parse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, b'a']).is_err());
    }
}
