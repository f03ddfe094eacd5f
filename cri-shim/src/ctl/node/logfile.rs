//! The CRI's log format: `TIME STREAM F|P TEXT`, one line an entry or a part of one.
//!
//! An entry that is longer than the writer's buffer is split: `P` says that it goes on in the next line of the same
//! stream. Entries are printed part by part, so that no entry has to be held in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Longest line that is read; writers split at 16 KiB.
const MAX_LINE: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub time: &'a str,
    pub stream: Stream,
    /// The entry goes on in the stream's next line.
    pub partial: bool,
    pub text: &'a [u8],
}

/// None for what no CRI runtime wrote.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; the first one says whether the entry ends here.
    let partial = parts.next()?.split(|byte| *byte == b':').next()? == b"P";
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// A log file that may still grow.
pub(super) struct LogFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// The beginning of a line whose end is not written yet.
    pending: Vec<u8>,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), reader: BufReader::new(File::open(path)?), pending: Vec::new() })
    }

    /// The next whole line; None where the file ends for now.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = MAX_LINE.saturating_sub(self.pending.len() as u64);
        (&mut self.reader).take(room).read_until(b'\n', &mut self.pending)?;
        let whole = self.pending.ends_with(b"\n") || self.pending.len() as u64 >= MAX_LINE;
        Ok(whole.then(|| std::mem::take(&mut self.pending)))
    }

    /// Goes to the beginning of the last `count` entries, in one pass that keeps only their places.
    pub(super) fn seek_to_last(&mut self, count: usize) -> io::Result<()> {
        let mut starts = std::collections::VecDeque::new();
        let mut at = 0;
        let mut goes_on = [false; 2];
        while let Some(line) = self.next_line()? {
            if let Some(parsed) = parse(&line) {
                let stream = &mut goes_on[usize::from(parsed.stream == Stream::Stderr)];
                if !*stream {
                    starts.push_back(at);
                    if starts.len() > count {
                        starts.pop_front();
                    }
                }
                *stream = parsed.partial;
            }
            at += line.len() as u64;
        }
        self.pending.clear();
        let from = if count == 0 { at } else { starts.front().copied().unwrap_or(at) };
        self.reader.seek(SeekFrom::Start(from)).map(|_| ())
    }

    /// Goes on with the file that took this one's name; false where it is still the same.
    pub(super) fn follow_rotation(&mut self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let ours = self.reader.get_ref().metadata()?;
        let named = match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if (ours.dev(), ours.ino()) == (named.dev(), named.ino()) {
            return Ok(false);
        }
        *self = Self::open(&self.path)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, LogFile, File) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let log = LogFile::open(&path).unwrap();
        (directory, log, file)
    }

    fn rest(log: &mut LogFile) -> String {
        let mut all = Vec::new();
        while let Some(line) = log.next_line().unwrap() {
            all.extend(line);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn lines_have_four_parts() {
        let line = |partial, text| Line { time: "T", stream: Stream::Stdout, partial, text };
        assert_eq!(parse(b"T stdout F hello world\n"), Some(line(false, b"hello world".as_slice())));
        assert_eq!(parse(b"T stdout P:x  a\n"), Some(line(true, b" a".as_slice())));
        assert_eq!(parse(b"T stdout F \n"), Some(line(false, b"".as_slice())));
        assert_eq!((parse(b"T stdin F a\n"), parse(b"nothing\n")), (None, None));
    }

    #[test]
    fn the_last_entries_are_counted_whole() {
        let text = "T stdout F one\nT stdout P tw\nT stderr F warn\nT stdout F o\nT stdout F three\n";
        for (count, expected) in [
            (0, ""),
            (1, "T stdout F three\n"),
            (3, "T stdout P tw\nT stderr F warn\nT stdout F o\nT stdout F three\n"),
            (9, text),
        ] {
            let (_directory, mut log, _file) = written(text);
            log.seek_to_last(count).unwrap();
            assert_eq!(rest(&mut log), expected, "{count}");
        }
    }

    #[test]
    fn a_line_is_given_when_it_is_whole() {
        let (_directory, mut log, mut file) = written("T stdout F one\nT std");
        assert_eq!(rest(&mut log), "T stdout F one\n");
        file.write_all(b"out F two\n").unwrap();
        assert_eq!(rest(&mut log), "T stdout F two\n");
    }

    #[test]
    fn a_rotated_file_is_followed() {
        let (directory, mut log, _file) = written("T stdout F one\n");
        assert_eq!(rest(&mut log), "T stdout F one\n");
        assert!(!log.follow_rotation().unwrap());
        let path = directory.path().join("0.log");
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        assert!(!log.follow_rotation().unwrap());
        std::fs::write(&path, "T stdout F two\n").unwrap();
        assert!(log.follow_rotation().unwrap());
        assert_eq!(rest(&mut log), "T stdout F two\n");
    }
}
