//! Small files, written so that a reader finds the old content or the new one and never a part.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault;

/// The largest record that is read.
const RECORD_LIMIT: u64 = 8 << 20;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Makes a directory and its parents, only for the owner to read.
pub fn create_dirs(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path)
}

/// Opens or makes a lock file.
pub fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Replaces or makes the file `path` with this content, durable when it returns.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let unique = format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    // The final name may be as long as the file system allows; a temporary one of its length plus ours would not fit.
    let temporary =
        directory.join(format!(".{}{unique}", &name.to_string_lossy().chars().take(64).collect::<String>()));
    let result = write_and_rename(&temporary, path, content);
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result?;
    sync_directory(directory)
}

fn write_and_rename(temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    fault::point("store.write")?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fault::point("store.rename")?;
    fs::rename(temporary, path)
}

/// Makes renames and unlinks in a directory durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    fault::point("store.sync")?;
    File::open(path)?.sync_all()
}

/// Reads a file of at most `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    Ok(content)
}

/// Reads a record.
pub fn read_record(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(path, RECORD_LIMIT)
}

/// Whether a name is that of a temporary file of [`replace`].
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Removes a file; that there is none is fine. Returns whether there was one.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The UTF-8 names in a directory.
pub fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
