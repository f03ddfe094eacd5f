//! CRI logs: `<RFC 3339 time, nanoseconds> <stdout|stderr> <F|P> <text>`.
//!
//! A line longer than 16 KiB is cut into partial entries (`P`) of which the last is full (`F`). A write that fails (disk
//! full) loses that entry and is counted; the container never waits for the disk of its log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_runtime::state::civil;

/// Longest text of one entry in bytes, as containerd's `max_container_log_line_size`.
pub const MAX_LINE: usize = 16 * 1024;

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One container's log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    /// Entries that could not be written.
    pub lost: u64,
}

impl Log {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), file: Some(open(path)?), lost: 0 })
    }

    /// Opens the path anew, for rotation; on failure the old file stays in use.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(open(&self.path)?);
        Ok(())
    }

    fn write(&mut self, entries: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if append(file, entries).is_err() {
            self.lost += 1;
        }
    }
}

/// Appends all or nothing: what a full disk took of an entry is cut off, or the next entry would continue its line.
fn append(file: &mut File, mut entries: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while !entries.is_empty() {
        match file.write(entries) {
            Ok(0) => return cut(file, written, io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                entries = &entries[count..];
                written += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return cut(file, written, error),
        }
    }
    Ok(())
}

fn cut(file: &File, written: u64, error: io::Error) -> io::Result<()> {
    if written > 0 {
        let length = file.metadata()?.len();
        file.set_len(length.saturating_sub(written))?;
    }
    Err(error)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Cuts one stream into entries.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
    pending: Vec<u8>,
}

impl Lines {
    #[must_use]
    pub const fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Writes what is complete of `bytes` and keeps the rest.
    pub fn push(&mut self, mut bytes: &[u8], log: &mut Log) {
        let now = timestamp(SystemTime::now());
        let mut entries = Vec::with_capacity(bytes.len() + 128);
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|b| *b == b'\n') {
                self.pending.extend_from_slice(&window[..end]);
                self.render(&now, 'F', &mut entries);
                bytes = &bytes[end + 1..];
            } else {
                self.pending.extend_from_slice(window);
                bytes = &bytes[window.len()..];
                // A line of exactly the maximum is full if its newline comes next: that is seen at the next byte.
                if self.pending.len() == MAX_LINE && bytes.first().is_some_and(|b| *b != b'\n') {
                    self.render(&now, 'P', &mut entries);
                } else if self.pending.len() == MAX_LINE && bytes.first() == Some(&b'\n') {
                    self.render(&now, 'F', &mut entries);
                    bytes = &bytes[1..];
                } else if self.pending.len() == MAX_LINE {
                    self.render(&now, 'P', &mut entries);
                }
            }
        }
        log.write(&entries);
    }

    /// Writes an unfinished line at the end of the stream.
    pub fn finish(&mut self, log: &mut Log) {
        if !self.pending.is_empty() {
            let mut entries = Vec::new();
            self.render(&timestamp(SystemTime::now()), 'F', &mut entries);
            log.write(&entries);
        }
    }

    fn render(&mut self, now: &str, tag: char, entries: &mut Vec<u8>) {
        entries.extend_from_slice(format!("{now} {} {tag} ", self.stream.name()).as_bytes());
        entries.append(&mut self.pending);
        entries.push(b'\n');
    }
}

/// RFC 3339 in UTC with nine digits of a second.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(i64::try_from(days).unwrap_or(0));
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn entries(pieces: &[&[u8]]) -> Vec<String> {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("log");
        let mut log = Log::open(&path).expect("open");
        let mut lines = Lines::new(Stream::Stdout);
        for piece in pieces {
            lines.push(piece, &mut log);
        }
        lines.finish(&mut log);
        let text = std::fs::read_to_string(&path).expect("read");
        text.lines().map(|l| l.split_once(' ').expect("time").1.to_owned()).collect()
    }

    #[test]
    fn lines_come_whole_however_they_were_written() {
        assert_eq!(
            entries(&[b"a\nb", b"c\n", b"\n", b"d"]),
            ["stdout F a", "stdout F bc", "stdout F ", "stdout F d"]
        );
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'x'; MAX_LINE + 3];
        let mut text = long.clone();
        text.push(b'\n');
        let got = entries(&[&text]);
        assert_eq!(got[0].len(), "stdout P ".len() + MAX_LINE);
        assert_eq!((got.len(), &got[0][..9], got[1].as_str()), (2, "stdout P ", "stdout F xxx"));
        let mut exact = vec![b'y'; MAX_LINE];
        exact.push(b'\n');
        let got = entries(&[&exact]);
        assert_eq!((got.len(), &got[0][..9]), (1, "stdout F "));
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = |secs, nanos| timestamp(UNIX_EPOCH + Duration::new(secs, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_399, 5), "2000-02-28T23:59:59.000000005Z");
        assert_eq!(at(1_709_164_800, 0), "2024-02-29T00:00:00.000000000Z");
    }

    #[test]
    fn a_full_disk_loses_entries_and_says_so() {
        let mut log = Log::open(Path::new("/dev/full")).expect("open");
        Lines::new(Stream::Stderr).push(b"a\nb\n", &mut log);
        assert_eq!(log.lost, 1);
    }

    #[test]
    fn half_an_entry_is_not_left_behind() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("log");
        std::fs::write(&path, "whole\n").expect("write");
        let file = OpenOptions::new().append(true).open(&path).expect("open");
        (&file).write_all(b"half an ent").expect("write");
        assert!(cut(&file, 11, io::ErrorKind::StorageFull.into()).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "whole\n");
    }

    #[test]
    fn a_rotated_log_goes_on_in_a_new_file() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("log");
        let mut log = Log::open(&path).expect("open");
        let mut lines = Lines::new(Stream::Stdout);
        lines.push(b"one\n", &mut log);
        std::fs::rename(&path, directory.path().join("log.1")).expect("rotate");
        lines.push(b"two\n", &mut log);
        log.reopen().expect("reopen");
        lines.push(b"three\n", &mut log);
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("read");
        assert!(
            read("log.1").contains("two") && read("log").contains("three") && !read("log").contains("two")
        );
    }
}
