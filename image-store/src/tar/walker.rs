//! The state machine of the parser.
//!
//! ```text
//! Header ─┬─ extended header ─▶ Extended ─▶ Header
//!         ├─ old sparse ──────▶ SparseBlocks ─┐
//!         ├─ sparse 1.0 ──────▶ SparseMap ────┤
//!         ├─ file ────────────────────────────┴─▶ Data ─▶ Skip (padding) ─▶ Header
//!         ├─ anything else ───▶ Skip ─▶ Header
//!         └─ block of zeros ──▶ End (what follows belongs to the digest, not to the archive)
//! ```

use super::header::{self, Header};
use super::pax::Attributes;
use super::sparse::{self, LeadingMap};
use super::{BLOCK, Entry, EntryKind, Error, Event, Extent, Timestamp, limits};

/// The parser. Feed it with [`Walker::next`] and end with [`Walker::finish`].
#[derive(Debug)]
pub struct Walker {
    state: State,
    position: u64,
    block: Box<[u8; BLOCK]>,
    filled: usize,
    globals: Attributes,
    local: Option<Attributes>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    Header,
    Extended { kind: Extended, offset: u64, left: u64, padding: u64, bytes: Vec<u8> },
    SparseBlocks(File),
    SparseMap { file: File, map: LeadingMap },
    Data { extents: Vec<Extent>, next: usize, done: u64, left: u64, padding: u64 },
    Skip { left: u64 },
    End,
}

#[derive(Debug, Clone, Copy)]
enum Extended {
    Global,
    Local,
    LongName,
    LongLink,
}

/// A file whose data has not begun.
#[derive(Debug)]
struct File {
    entry: Box<Entry>,
    offset: u64,
    stored: u64,
    sparse: Option<Vec<u64>>,
}

enum Step<'a> {
    Event(Event<'a>),
    Again,
    Starved,
}

impl Default for Walker {
    fn default() -> Self {
        Self::new()
    }
}

impl Walker {
    /// A parser at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Header,
            position: 0,
            block: Box::new([0; BLOCK]),
            filled: 0,
            globals: Attributes::default(),
            local: None,
            long_name: None,
            long_link: None,
        }
    }

    /// Takes bytes from the front of `input` up to the next event; `None` when the input is used up. An error is final.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        loop {
            match self.step(input)? {
                Step::Event(event) => return Ok(Some(event)),
                Step::Again => {}
                Step::Starved => return Ok(None),
            }
        }
    }

    /// Checks that the stream may end here. The end marker may be missing, and so may the padding of the last file.
    pub fn finish(&self) -> Result<(), Error> {
        let pending = self.local.is_some() || self.long_name.is_some() || self.long_link.is_some();
        let complete = match &self.state {
            State::Header => self.filled == 0 && !pending,
            State::Skip { left } => *left < BLOCK as u64,
            State::Data { left, .. } => *left == 0,
            State::End => true,
            State::Extended { .. } | State::SparseBlocks(_) | State::SparseMap { .. } => false,
        };
        if complete { Ok(()) } else { Err(Error::Truncated { offset: self.position }) }
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Error> {
        match &self.state {
            State::Header => self.read_block(input, Self::header),
            State::Extended { .. } => self.extended(input),
            State::SparseBlocks(_) => self.read_block(input, Self::sparse_block),
            State::SparseMap { .. } => self.read_block(input, Self::sparse_map),
            State::Data { .. } => Ok(self.data(input)),
            State::Skip { left: 0 } => {
                self.state = State::Header;
                Ok(Step::Again)
            }
            &State::Skip { left } => {
                let taken = self.take(input, left).len() as u64;
                self.state = State::Skip { left: left - taken };
                Ok(if taken == 0 { Step::Starved } else { Step::Again })
            }
            State::End => {
                self.take(input, u64::MAX);
                Ok(Step::Starved)
            }
        }
    }

    fn take<'a>(&mut self, input: &mut &'a [u8], most: u64) -> &'a [u8] {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
        let (taken, rest) = input.split_at(length);
        *input = rest;
        self.position += length as u64;
        taken
    }

    fn read_block<'a>(
        &mut self,
        input: &mut &'a [u8],
        then: fn(&mut Self) -> Result<Step<'a>, Error>,
    ) -> Result<Step<'a>, Error> {
        let bytes = self.take(input, (BLOCK - self.filled) as u64);
        self.block[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        if self.filled < BLOCK {
            return Ok(Step::Starved);
        }
        self.filled = 0;
        then(self)
    }

    fn header<'a>(&mut self) -> Result<Step<'a>, Error> {
        let offset = self.position - BLOCK as u64;
        let Some(header) = header::parse(&self.block, offset)? else {
            self.state = State::End;
            return Ok(Step::Again);
        };
        match header.kind {
            b'x' | b'X' => self.begin_extended(Extended::Local, &header),
            b'g' => self.begin_extended(Extended::Global, &header),
            b'L' => self.begin_extended(Extended::LongName, &header),
            b'K' => self.begin_extended(Extended::LongLink, &header),
            // A volume label names the archive, no file in it.
            b'V' => {
                self.state = State::Skip { left: padded(header.size, offset)? };
                Ok(Step::Again)
            }
            _ => self.begin_entry(header),
        }
    }

    fn begin_extended<'a>(&mut self, kind: Extended, header: &Header) -> Result<Step<'a>, Error> {
        let &Header { offset, size, .. } = header;
        if size > limits::EXTENDED_HEADER {
            return Err(Error::TooLarge { offset, what: "extended header", limit: limits::EXTENDED_HEADER });
        }
        self.state = State::Extended {
            kind,
            offset,
            left: size,
            padding: padded(size, offset)? - size,
            bytes: Vec::new(),
        };
        Ok(Step::Again)
    }

    fn extended<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Error> {
        let State::Extended { kind, offset, left, padding, mut bytes } =
            std::mem::replace(&mut self.state, State::Header)
        else {
            return Ok(Step::Again);
        };
        if left == 0 && padding == 0 {
            self.end_extended(kind, bytes, offset)?;
            return Ok(Step::Again);
        }
        let taken = self.take(input, if left > 0 { left } else { padding });
        let length = taken.len() as u64;
        let (left, padding) = if left > 0 {
            bytes.extend_from_slice(taken);
            (left - length, padding)
        } else {
            (0, padding - length)
        };
        self.state = State::Extended { kind, offset, left, padding, bytes };
        Ok(if length == 0 { Step::Starved } else { Step::Again })
    }

    fn end_extended(&mut self, kind: Extended, mut bytes: Vec<u8>, offset: u64) -> Result<(), Error> {
        match kind {
            Extended::Local => self.local.get_or_insert_default().parse(&bytes, offset),
            Extended::Global => {
                let mut attributes = Attributes::default();
                attributes.parse(&bytes, offset)?;
                self.globals.merge_global(attributes, offset)
            }
            Extended::LongName | Extended::LongLink => {
                bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
                match kind {
                    Extended::LongName => self.long_name = Some(bytes),
                    _ => self.long_link = Some(bytes),
                }
                Ok(())
            }
        }
    }

    fn begin_entry<'a>(&mut self, header: Header) -> Result<Step<'a>, Error> {
        let offset = header.offset;
        let local = self.local.take().unwrap_or_default();
        let stored = local.size.unwrap_or(header.size);
        let (type_flag, sparse) = (header.kind, local.sparse.clone());
        let entry = self.entry(header, local)?;
        if entry.kind != EntryKind::File {
            // Links, devices, directories and pipes have no data whatever their size field says, as in Go's reader,
            // which all other engines use. A file whose name ends in a slash is a directory that may have some.
            let skipped = if matches!(type_flag, 0 | b'0' | b'7') { padded(stored, offset)? } else { 0 };
            self.state = State::Skip { left: skipped };
            return Ok(Step::Event(Event::Entry(entry)));
        }
        let mut file = File { entry, offset, stored, sparse: None };
        if type_flag == b'S' {
            return self.begin_old_sparse(file);
        }
        let is_sparse = sparse.major.is_some() || !sparse.numbers.is_empty() || sparse.real_size.is_some();
        if !is_sparse {
            return self.begin_data(file);
        }
        file.entry.size = sparse.real_size.ok_or(Error::Sparse { offset })?;
        if sparse.major == Some(1) {
            self.state = State::SparseMap { file, map: LeadingMap::default() };
            return Ok(Step::Again);
        }
        file.sparse = Some(sparse.numbers);
        self.begin_data(file)
    }

    fn entry(&mut self, header: Header, local: Attributes) -> Result<Box<Entry>, Error> {
        let offset = header.offset;
        let id = |pax: Option<u64>, global: Option<u64>, field: i64, name| {
            let value = pax.or(global).map_or(Some(field), |value| i64::try_from(value).ok());
            // The all-ones id means "no change" to chown.
            let id = value.and_then(|value| u32::try_from(value).ok()).filter(|&id| id != u32::MAX);
            id.ok_or(Error::Number { offset, field: name })
        };
        let path = self.long_name.take().or(local.sparse.name).or(local.path).unwrap_or(header.path);
        let device = |value: i64| u32::try_from(value).map_err(|_| Error::Number { offset, field: "device" });
        let kind = match header.kind {
            0 | b'0' | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice { major: device(header.major)?, minor: device(header.minor)? },
            b'4' => EntryKind::BlockDevice { major: device(header.major)?, minor: device(header.minor)? },
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(Error::Type { offset, kind: char::from(other) }),
        };
        let link = self.long_link.take().or(local.link).unwrap_or(header.link);
        let header_time = Timestamp { seconds: header.mtime, nanoseconds: 0 };
        let mut xattrs = self.globals.xattrs.clone();
        xattrs.retain(|global| local.xattrs.iter().all(|own| own.name != global.name));
        xattrs.extend(local.xattrs);
        Ok(Box::new(Entry {
            path,
            link: if matches!(kind, EntryKind::HardLink | EntryKind::Symlink) { link } else { Vec::new() },
            kind,
            mode: (header.mode & 0o7777) as u32,
            uid: id(local.uid, self.globals.uid, header.uid, "uid")?,
            gid: id(local.gid, self.globals.gid, header.gid, "gid")?,
            mtime: local.mtime.or(self.globals.mtime).unwrap_or(header_time),
            size: 0,
            extents: Vec::new(),
            xattrs,
        }))
    }

    fn begin_old_sparse<'a>(&mut self, mut file: File) -> Result<Step<'a>, Error> {
        let offset = file.offset;
        let mut numbers = Vec::new();
        sparse::old_entries(&self.block[386..482], 4, &mut numbers, offset)?;
        let real_size = super::number::field(&self.block[483..495]).and_then(|size| u64::try_from(size).ok());
        file.entry.size = real_size.ok_or(Error::Sparse { offset })?;
        file.sparse = Some(numbers);
        if self.block[482] == 0 {
            return self.begin_data(file);
        }
        self.state = State::SparseBlocks(file);
        Ok(Step::Again)
    }

    fn sparse_block<'a>(&mut self) -> Result<Step<'a>, Error> {
        let State::SparseBlocks(mut file) = std::mem::replace(&mut self.state, State::Header) else {
            return Ok(Step::Again);
        };
        let numbers = file.sparse.get_or_insert_default();
        sparse::old_entries(&self.block[..504], 21, numbers, file.offset)?;
        if self.block[504] == 0 {
            return self.begin_data(file);
        }
        // Without progress an endless chain of empty blocks would be taken; the stream's length bounds it.
        self.state = State::SparseBlocks(file);
        Ok(Step::Again)
    }

    fn sparse_map<'a>(&mut self) -> Result<Step<'a>, Error> {
        let State::SparseMap { mut file, mut map } = std::mem::replace(&mut self.state, State::Header) else {
            return Ok(Step::Again);
        };
        file.stored = file.stored.checked_sub(BLOCK as u64).ok_or(Error::Sparse { offset: file.offset })?;
        if map.push(&self.block, file.offset)? {
            file.sparse = Some(map.numbers);
            return self.begin_data(file);
        }
        self.state = State::SparseMap { file, map };
        Ok(Step::Again)
    }

    fn begin_data<'a>(&mut self, file: File) -> Result<Step<'a>, Error> {
        let File { mut entry, offset, stored, sparse } = file;
        let padding = padded(stored, offset)? - stored;
        let numbers = sparse.unwrap_or_else(|| {
            entry.size = stored;
            vec![0, stored]
        });
        if entry.size > limits::FILE {
            return Err(Error::TooLarge { offset, what: "file", limit: limits::FILE });
        }
        entry.extents = sparse::extents(&numbers, entry.size, stored, self.position, offset)?;
        self.state = State::Data { extents: entry.extents.clone(), next: 0, done: 0, left: stored, padding };
        Ok(Step::Event(Event::Entry(entry)))
    }

    fn data<'a>(&mut self, input: &mut &'a [u8]) -> Step<'a> {
        let State::Data { extents, next, done, left, padding } = &self.state else { return Step::Again };
        let (extent, next, done, left, padding) =
            (extents.get(*next).copied(), *next, *done, *left, *padding);
        if left == 0 {
            self.state = State::Skip { left: padding };
            return Step::Event(Event::FileEnd);
        }
        // After the last extent only bytes that no map mentions are left.
        let bytes = self.take(input, extent.map_or(left, |extent| extent.length - done));
        let length = bytes.len() as u64;
        if let State::Data { next: at, done: part, left: rest, .. } = &mut self.state {
            *rest = left - length;
            let full = extent.is_some_and(|extent| done + length == extent.length);
            (*at, *part) = if full { (next + 1, 0) } else { (next, done + length) };
        }
        match extent {
            _ if bytes.is_empty() => Step::Starved,
            Some(extent) => Step::Event(Event::Data { file_offset: extent.file_offset + done, bytes }),
            None => Step::Again,
        }
    }
}

fn padded(size: u64, offset: u64) -> Result<u64, Error> {
    // No stream is that long; the bound keeps every later sum within 64 bits.
    if size > 1 << 62 {
        return Err(Error::Number { offset, field: "size" });
    }
    Ok(size.next_multiple_of(BLOCK as u64))
}
