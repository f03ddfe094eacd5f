//! What a tree takes on disk. The tree may be a container's, which changes it meanwhile: every directory is opened by handle
//! below the root, no link is followed, no other file system entered.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, statat};

/// Files with several links that are remembered; what is more is counted for each of its links.
const MAX_LINKS: usize = 1 << 20;

/// Bytes on disk and inodes, files with several links counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Measures a directory and all below it. What is not there, or disappears meanwhile, counts for nothing.
pub(crate) fn measure(directory: &Path) -> Usage {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(directory, flags, Mode::empty()) else { return Usage::default() };
    let Ok(top) = fstat(&root) else { return Usage::default() };
    let mut usage = Usage { bytes: blocks(&top), inodes: 1 };
    let mut links = HashSet::new();
    let mut left = vec![PathBuf::from(".")];
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    while let Some(path) = left.pop() {
        let Ok(open) = openat2(&root, &path, flags, Mode::empty(), within) else { continue };
        let Ok(entries) = Dir::read_from(&open) else { continue };
        for entry in entries.flatten() {
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let Ok(stat) = statat(open.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let seen =
                stat.st_nlink > 1 && !directory && links.len() < MAX_LINKS && !links.insert(stat.st_ino);
            if stat.st_dev != top.st_dev || seen {
                continue;
            }
            usage.bytes += blocks(&stat);
            usage.inodes += 1;
            if directory {
                left.push(path.join(name));
            }
        }
    }
    usage
}

fn blocks(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_counted_once_and_not_followed() {
        let outside = tempfile::tempdir().expect("directory");
        std::fs::write(outside.path().join("big"), vec![1u8; 1_000_000]).expect("file");
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("d")).expect("directory");
        std::fs::write(at("d/a"), vec![1u8; 100_000]).expect("file");
        std::fs::hard_link(at("d/a"), at("b")).expect("link");
        std::os::unix::fs::symlink(outside.path(), at("out")).expect("link");
        let usage = measure(directory.path());
        assert_eq!(usage.inodes, 4, "the directory, d, a and the link");
        assert!((100_000..200_000).contains(&usage.bytes), "{usage:?}");
        assert_eq!(measure(&at("absent")), Usage::default());
    }
}
