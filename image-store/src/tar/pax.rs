//! PAX extended headers: `<length> <key>=<value>\n` records, local to one entry or global.

use super::{Error, Timestamp, Xattr, limits, number};

/// What the records of one extended header say. Keys that mean nothing here (`comment`, `uname`, `atime` …) are skipped.
#[derive(Debug, Default, Clone)]
pub struct Attributes {
    /// `path`.
    pub path: Option<Vec<u8>>,
    /// `linkpath`.
    pub link: Option<Vec<u8>>,
    /// `size`.
    pub size: Option<u64>,
    /// `uid`.
    pub uid: Option<u64>,
    /// `gid`.
    pub gid: Option<u64>,
    /// `mtime`.
    pub mtime: Option<Timestamp>,
    /// `SCHILY.xattr.*` and `LIBARCHIVE.xattr.*`.
    pub xattrs: Vec<Xattr>,
    /// `GNU.sparse.*`.
    pub sparse: SparseAttributes,
}

/// The `GNU.sparse.*` keys.
#[derive(Debug, Default, Clone)]
pub struct SparseAttributes {
    /// Format version, 1.0 has the map in the data.
    pub major: Option<u64>,
    /// `GNU.sparse.name`: the real path.
    pub name: Option<Vec<u8>>,
    /// `GNU.sparse.realsize` or `GNU.sparse.size`: the length with holes.
    pub real_size: Option<u64>,
    /// Offsets and lengths in turn, from `GNU.sparse.map` (0.1) or repeated `offset`/`numbytes` (0.0).
    pub numbers: Vec<u64>,
}

impl Attributes {
    /// Parses a whole extended header. `offset` is where it stands, for errors.
    pub fn parse(&mut self, mut records: &[u8], offset: u64) -> Result<(), Error> {
        let malformed = Error::Pax { offset };
        while !records.is_empty() {
            // Some writers pad the header with NULs inside its length.
            if records.iter().all(|&byte| byte == 0) {
                return Ok(());
            }
            let blank = records.iter().take(20).position(|&byte| byte == b' ').ok_or(malformed.clone())?;
            let length = number::decimal(&records[..blank]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|&length| length > blank + 1 && length <= records.len());
            let (record, rest) = records.split_at(length.ok_or(malformed.clone())?);
            let record = record[blank + 1..].strip_suffix(b"\n").ok_or(malformed.clone())?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(malformed.clone())?;
            self.set(&record[..equals], &record[equals + 1..], offset)?;
            records = rest;
        }
        Ok(())
    }

    /// Takes over what a later global header says. What names one entry (path, size, sparse map) can't be global.
    pub fn merge_global(&mut self, later: Self, offset: u64) -> Result<(), Error> {
        self.uid = later.uid.or(self.uid);
        self.gid = later.gid.or(self.gid);
        self.mtime = later.mtime.or(self.mtime);
        for xattr in later.xattrs {
            self.set_xattr(xattr.name, xattr.value);
        }
        let kept: usize = self.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        if kept > limits::GLOBAL_PAX {
            return Err(Error::TooLarge {
                offset,
                what: "global PAX header",
                limit: limits::GLOBAL_PAX as u64,
            });
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<(), Error> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.set_xattr(name.to_vec(), value.to_vec());
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let malformed = Error::Pax { offset };
            self.set_xattr(
                url_decode(name).ok_or(malformed.clone())?,
                base64_decode(value).ok_or(malformed)?,
            );
            return Ok(());
        }
        // An empty value takes the key back (POSIX): the header's own field counts again.
        let text = (!value.is_empty()).then(|| value.to_vec());
        let number = |field| match value {
            [] => Ok(None),
            _ => number::decimal(value).map(Some).ok_or(Error::Number { offset, field }),
        };
        match key {
            b"path" => self.path = text,
            b"linkpath" => self.link = text,
            b"size" => self.size = number("PAX size")?,
            b"uid" => self.uid = number("PAX uid")?,
            b"gid" => self.gid = number("PAX gid")?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => {
                self.mtime =
                    Some(number::timestamp(value).ok_or(Error::Number { offset, field: "PAX mtime" })?);
            }
            b"GNU.sparse.major" => self.sparse.major = number("sparse version")?,
            b"GNU.sparse.name" => self.sparse.name = text,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number("sparse size")?,
            b"GNU.sparse.map" => self.set_map(value, offset)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let is_offset = key == b"GNU.sparse.offset";
                let expected = self.sparse.numbers.len().is_multiple_of(2);
                if is_offset != expected || self.sparse.numbers.len() >= 2 * limits::EXTENTS {
                    return Err(Error::Sparse { offset });
                }
                self.sparse.numbers.push(number::decimal(value).ok_or(Error::Sparse { offset })?);
            }
            _ => {}
        }
        Ok(())
    }

    fn set_map(&mut self, value: &[u8], offset: u64) -> Result<(), Error> {
        self.sparse.numbers.clear();
        if value.is_empty() {
            return Ok(());
        }
        for number in value.split(|&byte| byte == b',') {
            if self.sparse.numbers.len() >= 2 * limits::EXTENTS {
                return Err(Error::TooLarge { offset, what: "sparse map", limit: limits::EXTENTS as u64 });
            }
            self.sparse.numbers.push(number::decimal(number).ok_or(Error::Sparse { offset })?);
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        match self.xattrs.iter_mut().find(|xattr| xattr.name == name) {
            Some(xattr) => xattr.value = value,
            None => self.xattrs.push(Xattr { name, value }),
        }
    }
}

fn url_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(decoded)
}

// libarchive writes it without padding; others with.
fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in text.iter().filter(|&&byte| byte != b'=' && byte != b'\n') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff) as u8);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let mut attributes = Attributes::default();
        attributes
            .parse(b"13 path=a b=c\n12 mtime=1.5\n6 uid=\n30 SCHILY.xattr.user.x=v\n\0\0=\n", 0)
            .unwrap_err();
        let mut attributes = Attributes::default();
        attributes
            .parse(b"14 path=a b=c\n13 mtime=1.5\n7 uid=\n30 SCHILY.xattr.user.x=v\n\0\0\0\0\n", 0)
            .unwrap();
        assert_eq!(attributes.path.as_deref(), Some(&b"a b=c"[..]));
        assert_eq!(attributes.mtime, Some(Timestamp { seconds: 1, nanoseconds: 500_000_000 }));
        assert_eq!(attributes.uid, None);
        assert_eq!(attributes.xattrs, [Xattr { name: b"user.x".to_vec(), value: b"v\n\0\0\0\0".to_vec() }]);
    }

    #[test]
    fn libarchive_xattrs() {
        let mut attributes = Attributes::default();
        attributes.parse(b"39 LIBARCHIVE.xattr.user.a%3Db=aGVsbG8\n", 0).unwrap();
        assert_eq!(attributes.xattrs, [Xattr { name: b"user.a=b".to_vec(), value: b"hello".to_vec() }]);
    }

    #[test]
    fn malformed_records() {
        for wrong in
            [&b"x"[..], b"5 a=b", b"0 a=b\n", b"99 a=b\n", b"6 a=b\n\n", b"6 abcd\n", b"11 size=1x\n"]
        {
            assert!(Attributes::default().parse(wrong, 0).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
