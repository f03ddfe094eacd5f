//! Exit records: `exits/<id>.json` below the monitor's directory, written before anybody is told of an exit.
//!
//! A record is written to a temporary file and renamed: a reader sees all of it or nothing. It belongs to this boot (the
//! directory is in the run directory), so it is not synced.

use std::io;
use std::path::Path;

use crate::protocol::Exit;

const MAX_RECORD: u64 = 64 * 1024;

/// Writes the exit of container `id`.
pub fn save(directory: &Path, id: &str, exit: &Exit) -> io::Result<()> {
    let exits = directory.join("exits");
    std::fs::create_dir_all(&exits)?;
    let temporary = exits.join(format!(".{id}"));
    std::fs::write(&temporary, serde_json::to_vec(exit)?)?;
    std::fs::rename(&temporary, exits.join(format!("{id}.json")))
}

/// Reads it; `None` where there is none or it cannot be read as one.
#[must_use]
pub fn load(directory: &Path, id: &str) -> Option<Exit> {
    use io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(directory.join("exits").join(format!("{id}.json"))).ok()?;
    file.take(MAX_RECORD).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Removes it; one that is not there is fine.
pub fn remove(directory: &Path, id: &str) -> io::Result<()> {
    match std::fs::remove_file(directory.join("exits").join(format!("{id}.json"))) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
