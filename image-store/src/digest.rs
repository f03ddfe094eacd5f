//! Content digests: the name of every blob and layer, and the hasher that checks them.
//!
//! Only sha256 is kept: it is what every registry serves; another algorithm is refused rather than left unchecked.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A sha256 digest, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `algorithm:hex`.
    #[error("digest {0:?} is not of the form sha256:<64 hex digits>")]
    Malformed(String),
    /// An algorithm that the store does not keep.
    #[error("digest algorithm {0:?} is not supported, only sha256 is")]
    Algorithm(String),
}

impl Digest {
    /// The digest of a byte string.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of which these are the 32 raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The layer whose uncompressed tar has this digest.
    #[must_use]
    pub const fn to_diff_id(&self) -> crate::layer::DiffId {
        crate::layer::DiffId::from_bytes(self.0)
    }

    /// The 64 hex digits without the algorithm: the file name below `blobs/sha256`.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        text
    }

    /// Parses the 64 lower-case hex digits that `hex` writes.
    pub fn from_hex(hex: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed(hex.chars().take(100).collect());
        if hex.len() != 64 {
            return Err(malformed());
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = nibble(pair[0]).ok_or_else(malformed)? << 4 | nibble(pair[1]).ok_or_else(malformed)?;
        }
        Ok(Self(bytes))
    }
}

const fn nibble(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("sha256", hex)) => {
                Self::from_hex(hex).map_err(|_| Error::Malformed(text.chars().take(100).collect()))
            }
            Some((algorithm, _)) => Err(Error::Algorithm(algorithm.chars().take(32).collect())),
            None => Err(Error::Malformed(text.chars().take(100).collect())),
        }
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes a stream piece by piece.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    bytes: u64,
}

impl Hasher {
    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.state.update(piece);
        self.bytes += piece.len() as u64;
    }

    /// The bytes hashed up to now.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints_and_nothing_else() {
        let digest = Digest::of(b"hello");
        let text = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:2CF2",
            "sha256:../../etc/passwd",
            &text.to_uppercase(),
            &format!("{text}0"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert_eq!("sha512:00".parse::<Digest>(), Err(Error::Algorithm("sha512".into())));
    }
}
