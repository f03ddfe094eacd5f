//! The directory between host and guest: what is asked, what is said, what came of it.
//!
//! Files and not a device, because both kinds of machine can share a directory and lose nothing at its end. The request
//! is a list of `key value` records that end in a zero byte, so that arguments may hold anything else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// Where the guest mounts the directory.
pub const IN_GUEST: &str = "/run/coracle-guest";

pub const REQUEST: &str = "request";
pub const AGENT: &str = "agent";
pub const OUT: &str = "out";
pub const ERR: &str = "err";
pub const STATUS: &str = "status";
pub const CONSOLE: &str = "console";

/// One command for the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// The working directory; must lie in a share.
    pub directory: PathBuf,
    /// Directories of the host that are at the same paths in the guest, writable.
    pub shares: Vec<PathBuf>,
    /// Variables beside HOME and PATH.
    pub environment: Vec<(OsString, OsString)>,
}

impl Request {
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut record = |key: &str, value: &[u8]| {
            text.extend_from_slice(key.as_bytes());
            text.push(b' ');
            text.extend_from_slice(value);
            text.push(0);
        };
        record("directory", self.directory.as_os_str().as_bytes());
        self.shares.iter().for_each(|share| record("share", share.as_os_str().as_bytes()));
        for (name, value) in &self.environment {
            record("variable", &[name.as_bytes(), value.as_bytes()].join(&b'='));
        }
        self.command.iter().for_each(|argument| record("argument", argument.as_bytes()));
        text
    }

    /// # Errors
    /// Text that [`Self::render`] does not write.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let mut request = Self::default();
        for record in text.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
            let not_understood = || Error::Request(String::from_utf8_lossy(record).into_owned());
            let space = record.iter().position(|byte| *byte == b' ').ok_or_else(not_understood)?;
            let value = &record[space + 1..];
            match &record[..space] {
                b"directory" => request.directory = path(value),
                b"share" => request.shares.push(path(value)),
                b"argument" => request.command.push(OsString::from_vec(value.to_vec())),
                b"variable" => {
                    let equals = value.iter().position(|byte| *byte == b'=').ok_or_else(not_understood)?;
                    let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
                    request.environment.push((text(&value[..equals]), text(&value[equals + 1..])));
                }
                _ => return Err(not_understood()),
            }
        }
        Ok(request)
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(bytes)).to_owned()
}

/// The exit status that a guest left, if it did.
#[must_use]
pub fn status(directory: &Path) -> Option<u8> {
    std::fs::read_to_string(directory.join(STATUS)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_way() {
        let request = Request {
            command: ["sh", "-c", "echo 'a b'\n", ""].map(OsString::from).to_vec(),
            directory: "/a b".into(),
            shares: vec!["/a b".into(), "/t".into()],
            environment: vec![("X".into(), "a=b".into()), ("EMPTY".into(), "".into())],
        };
        assert_eq!(Request::parse(&request.render()).unwrap(), request);
        assert!(Request::parse(b"nonsense\0").is_err());
    }
}
