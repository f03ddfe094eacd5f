//! Small files read with few system calls.
//!
//! The size of a file of procfs, sysfs or cgroupfs is not known before it is read. std then asks for it in vain and reads
//! 32 bytes, 32, 64 …; a start reads twenty such files. Here a file is opened, read into a buffer that holds nearly
//! all of them whole, read once more to see its end, and closed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::path::Arg;

/// What the first read takes: the kernel gives files of procfs a page at a time.
const FIRST: usize = 4096;

/// The bytes of the file at `path`.
///
/// # Errors
/// The kernel's.
pub fn read<P: Arg>(path: P) -> io::Result<Vec<u8>> {
    let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    drain(&file, usize::MAX)
}

/// The text of the file at `path`.
///
/// # Errors
/// The kernel's; `InvalidData` for bytes that are no UTF-8.
pub fn read_text<P: Arg>(path: P) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The rest of an open file, but not more than a little over `limit` bytes: a longer answer says that there was more.
///
/// # Errors
/// The kernel's.
pub fn drain<Fd: AsFd>(file: Fd, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(FIRST);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
        let got = rustix::io::retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut bytes)))?;
        if got == 0 || bytes.len() > limit {
            return Ok(bytes);
        }
    }
}

/// Opens `path` below `directory` and reads it as [`drain`] does; a link is not followed.
///
/// # Errors
/// The kernel's.
pub fn read_at<P: Arg>(directory: &OwnedFd, path: P, limit: usize) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    drain(rustix::fs::openat(directory, path, flags, Mode::empty())?, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_every_size_are_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for length in [0, 1, FIRST - 1, FIRST, FIRST + 1, 5 * FIRST] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).unwrap(), bytes, "{length}");
        }
        assert!(drain(std::fs::File::open(&path).unwrap(), 10).unwrap().len() > 10);
    }

    #[test]
    fn a_file_without_a_size_is_read() {
        assert!(read_text("/proc/self/status").unwrap().contains("Name:"));
        assert_eq!(read("/no/such").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
