//! The digest of a directory tree: what `verify` compares for layers that are unpacked.
//!
//! Covers names, types, modes, owners, times, devices, link counts, link targets, attributes, and every block of data that
//! is not all zeros with its offset, so that a hole and the zeros it stands for are the same.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::SeekFrom;
use sha2::{Digest, Sha256};

use super::{DiffId, Error};

const PIECE: usize = 4096;

/// Reads the whole tree.
pub fn digest(root: &Path) -> Result<DiffId, Error> {
    let mut digest = Sha256::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).map_err(Error::io("read", &path))?;
        let name = path.strip_prefix(root).unwrap_or(&path);
        field(&mut digest, name.as_os_str().as_bytes());
        let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
        let size = if metadata.is_file() { metadata.len() } else { 0 };
        let numbers = [
            metadata.mode().into(),
            metadata.uid().into(),
            metadata.gid().into(),
            metadata.rdev(),
            links,
            size,
        ];
        numbers.iter().for_each(|number| digest.update(number.to_le_bytes()));
        digest.update(metadata.mtime().to_le_bytes());
        digest.update(metadata.mtime_nsec().to_le_bytes());
        xattrs(&mut digest, &path).map_err(Error::io("read attributes of", &path))?;
        if metadata.is_dir() {
            pending.extend(sorted(&path)?.into_iter().rev().map(|name| path.join(name)));
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(Error::io("read", &path))?;
            field(&mut digest, target.as_os_str().as_bytes());
        } else if metadata.is_file() {
            contents(&mut digest, &path).map_err(Error::io("read", &path))?;
        }
    }
    Ok(DiffId::from_bytes(digest.finalize().into()))
}

fn field(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

fn sorted(path: &Path) -> Result<Vec<OsString>, Error> {
    let entries = fs::read_dir(path).map_err(Error::io("list", path))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(Error::io("list", path))?;
    names.sort_unstable();
    Ok(names)
}

fn xattrs(digest: &mut Sha256, path: &Path) -> rustix::io::Result<()> {
    let mut list = vec![0_u8; 65_536];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut names: Vec<&[u8]> =
        list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    // The host's label, which policies change.
    names.retain(|name| *name != b"security.selinux");
    names.sort_unstable();
    let mut value = vec![0_u8; 65_536];
    for name in names {
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        field(digest, name);
        field(digest, &value[..length]);
    }
    Ok(())
}

fn contents(digest: &mut Sha256, path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    let mut buffer = vec![0_u8; 64 * PIECE];
    let mut at = 0;
    loop {
        at = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            // Pieces are counted from the start, wherever this file system's data begins.
            Ok(data) => data / PIECE as u64 * PIECE as u64,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let length = read_full(&file, &mut buffer, at)?;
        if length == 0 {
            return Ok(());
        }
        for (nth, piece) in buffer[..length].chunks(PIECE).enumerate() {
            if piece.iter().any(|&byte| byte != 0) {
                digest.update((at + (nth * PIECE) as u64).to_le_bytes());
                digest.update(piece);
            }
        }
        at += length as u64;
    }
}

fn read_full(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64)? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
