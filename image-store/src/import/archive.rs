//! A directory, or a tar with an index of its members: read in any order, nothing extracted.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::Store;
use crate::manifest::{Compression, DOCUMENT_LIMIT};
use crate::tar::{EntryKind, Event, Walker};

/// More members than any archive of images has; bounds the index.
const MEMBER_LIMIT: usize = 100_000;
const LINK_DEPTH: usize = 8;

pub(super) struct Archive {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Directory,
    Tar { file: Arc<File>, members: HashMap<String, Member> },
}

#[derive(Clone)]
enum Member {
    File { offset: u64, length: u64 },
    Link(String),
}

impl Archive {
    pub(super) fn open(store: &Store, path: &Path) -> Result<Self, Error> {
        let io = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        if path != Path::new("-") && path.is_dir() {
            return Ok(Self { path: path.to_owned(), kind: Kind::Directory });
        }
        let file = plain_tar(store, path).map_err(io("read"))?;
        let members = index(&file, path)?;
        Ok(Self { path: path.to_owned(), kind: Kind::Tar { file: Arc::new(file), members } })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Directory => self.path.join(name).is_file(),
            Kind::Tar { members, .. } => members.contains_key(name),
        }
    }

    /// A document of the archive.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        let reading = self.reader(name)?.take(DOCUMENT_LIMIT + 1).read_to_end(&mut content);
        reading.map_err(|error| Error::Member { name: name.to_owned(), what: error.to_string() })?;
        if content.len() as u64 > DOCUMENT_LIMIT {
            return Err(Error::Member {
                name: name.to_owned(),
                what: format!("more than {DOCUMENT_LIMIT} bytes"),
            });
        }
        Ok(content)
    }

    pub(super) fn reader(&self, name: &str) -> Result<Box<dyn Read>, Error> {
        let wrong = |what: String| Error::Member { name: name.to_owned(), what };
        match &self.kind {
            Kind::Directory => {
                // The names come from documents in the directory: they must not lead out of it.
                let root = pathrs::Root::open(&self.path).map_err(|error| wrong(error.to_string()))?;
                let file = root.open_subpath(name, pathrs::flags::OpenFlags::O_RDONLY);
                Ok(Box::new(file.map_err(|error| wrong(error.to_string()))?))
            }
            Kind::Tar { file, members } => {
                let (offset, length) = locate(members, name).ok_or_else(|| wrong("it is missing".into()))?;
                Ok(Box::new(Slice { file: Arc::clone(file), offset, left: length }))
            }
        }
    }

    pub(super) fn length(&self, name: &str) -> u64 {
        match &self.kind {
            Kind::Directory => self.path.join(name).metadata().map_or(0, |meta| meta.len()),
            Kind::Tar { members, .. } => locate(members, name).map_or(0, |(_, length)| length),
        }
    }
}

/// A part of a file, read without moving the file's own position.
struct Slice {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if length == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}

// Standard input and compressed archives go through an unnamed file in the store, which ends with the process.
fn plain_tar(store: &Store, path: &Path) -> io::Result<File> {
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let mut file = File::open(path)?;
        let mut first = [0; 4];
        let length = file.read(&mut first)?;
        file.seek(SeekFrom::Start(0))?;
        if Compression::detect(&first[..length]) == Compression::None && file.metadata()?.is_file() {
            return Ok(file);
        }
        Box::new(file)
    };
    let mut first = [0; 4];
    let mut length = 0;
    while length < first.len() {
        match source.read(&mut first[length..])? {
            0 => break,
            more => length += more,
        }
    }
    let whole = io::Cursor::new(first[..length].to_vec()).chain(source);
    let mut plain: Box<dyn Read> = match Compression::detect(&first[..length]) {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
    };
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(store.root().join("ingest"), flags, rustix::fs::Mode::RUSR)?);
    io::copy(&mut plain, &mut file)?;
    Ok(file)
}

fn index(file: &File, path: &Path) -> Result<HashMap<String, Member>, Error> {
    let tar = |source| Error::Tar { path: path.to_owned(), source };
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let mut members = HashMap::new();
    let mut walker = Walker::new();
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        let length = file.read_at(&mut buffer, position).map_err(io)?;
        if length == 0 {
            break;
        }
        position += length as u64;
        let mut input = &buffer[..length];
        while let Some(event) = walker.next(&mut input).map_err(tar)? {
            let Event::Entry(entry) = event else { continue };
            if members.len() >= MEMBER_LIMIT {
                return Err(Error::Member {
                    name: path.display().to_string(),
                    what: "too many members".into(),
                });
            }
            let name = clean(&String::from_utf8_lossy(&entry.path));
            let member = match entry.kind {
                EntryKind::File => Member::File {
                    offset: entry.extents.first().map_or(0, |extent| extent.tar_offset),
                    length: entry.size,
                },
                EntryKind::HardLink => Member::Link(clean(&String::from_utf8_lossy(&entry.link))),
                EntryKind::Symlink => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    Member::Link(clean(&format!("{directory}/{}", String::from_utf8_lossy(&entry.link))))
                }
                _ => continue,
            };
            members.insert(name, member);
        }
    }
    walker.finish().map_err(tar)?;
    Ok(members)
}

fn locate(members: &HashMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = clean(name);
    for _ in 0..LINK_DEPTH {
        match members.get(&name)? {
            Member::File { offset, length } => return Some((*offset, *length)),
            Member::Link(target) => name.clone_from(target),
        }
    }
    None
}

// `./a//b/../c` is `a/c`; `..` above the archive's root is dropped: names are only keys of the index.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
