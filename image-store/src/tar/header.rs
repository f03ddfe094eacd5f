//! One 512-byte header block.

use super::{BLOCK, Error, number};

/// The fields of a header whose checksum fits.
#[derive(Debug)]
pub struct Header {
    /// Where the header stands in the stream.
    pub offset: u64,
    /// Name, with the ustar prefix.
    pub path: Vec<u8>,
    /// Link target.
    pub link: Vec<u8>,
    /// Type flag.
    pub kind: u8,
    /// Mode as it stands.
    pub mode: i64,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Length of what follows.
    pub size: u64,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Major number of a device.
    pub major: i64,
    /// Minor number of a device.
    pub minor: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// Parses a block; `None` for a block of zeros, which ends the archive.
pub fn parse(block: &[u8; BLOCK], offset: u64) -> Result<Option<Header>, Error> {
    if block.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    if !checksum_fits(block) {
        return Err(Error::Checksum { offset });
    }
    let number = |range: std::ops::Range<usize>, field| {
        number::field(&block[range]).ok_or(Error::Number { offset, field })
    };
    let format = format(block);
    // Device numbers are blank or garbage in v7 headers, and in others of files that are no devices.
    let device = matches!(block[156], b'3' | b'4') && format != Format::V7;
    Ok(Some(Header {
        offset,
        path: path(block, format),
        link: until_nul(&block[157..257]).to_vec(),
        kind: block[156],
        mode: number(100..108, "mode")?,
        uid: number(108..116, "uid")?,
        gid: number(116..124, "gid")?,
        size: u64::try_from(number(124..136, "size")?)
            .map_err(|_| Error::Number { offset, field: "size" })?,
        mtime: number(136..148, "mtime")?,
        major: if device { number(329..337, "devmajor")? } else { 0 },
        minor: if device { number(337..345, "devminor")? } else { 0 },
    }))
}

fn format(block: &[u8; BLOCK]) -> Format {
    match (&block[257..263], &block[508..512]) {
        (b"ustar\0", b"tar\0") => Format::Star,
        (b"ustar\0", _) => Format::Ustar,
        (b"ustar ", _) => Format::Gnu,
        _ => Format::V7,
    }
}

fn path(block: &[u8; BLOCK], format: Format) -> Vec<u8> {
    let prefix = match format {
        Format::Ustar => until_nul(&block[345..500]),
        Format::Star => until_nul(&block[345..476]),
        // GNU keeps times and the sparse map there.
        Format::Gnu | Format::V7 => &[],
    };
    let name = until_nul(&block[..100]);
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

// The sum is over unsigned bytes; some old programs summed signed ones, and GNU tar accepts those too.
fn checksum_fits(block: &[u8; BLOCK]) -> bool {
    let Some(stored) = number::field(&block[148..156]) else { return false };
    let bytes =
        || block.iter().enumerate().map(|(i, &byte)| if (148..156).contains(&i) { b' ' } else { byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    stored == unsigned || stored == signed
}
