//! Compiled filters on disk, so that a container with a known profile compiles nothing.
//!
//! A directory of mode 0700 that must belong to us; a file a filter, named by the SHA-256 of profile, machine, kernel and
//! this build's version, written beside and renamed. A file is used only when it is ours, not writable by others and its
//! checksum holds; a crash leaves at worst a temporary file. Whatever is wrong with the cache, the filter is compiled.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};

use super::{Error, Filter, Host, MAX_INSTRUCTIONS, SockFilter, compile};

/// Changes with the compiler's output or this file's layout.
const FORMAT: &[u8] = b"coracle-seccomp 1\n";
/// More than the greatest filter takes.
const MAX_FILE: u64 = 64 * 1024;
/// Profiles kept; a node has a handful.
const MAX_FILES: usize = 128;

/// [`compile`] through a cache below `cache_dir`, which is created with mode 0700.
///
/// # Errors
/// Those of [`compile`]. A cache that can't be used is passed by, with a warning in the filter.
pub fn compile_cached(profile: &LinuxSeccomp, host: &Host, cache_dir: &Path) -> Result<Filter, Error> {
    let key = key(profile, host);
    let path = cache_dir.join(hex(&key));
    if let Err(error) = open_dir(cache_dir) {
        let mut filter = compile(profile, host)?;
        filter.warnings.push(format!("seccomp cache {} not used: {error}", cache_dir.display()));
        return Ok(filter);
    }
    if let Some(filter) = read(&path, &key, profile) {
        return Ok(filter);
    }
    let mut filter = compile(profile, host)?;
    // Names are quoted by `{:?}`, so that a warning is one line.
    if let Err(error) = write(cache_dir, &path, &key, &filter) {
        filter.warnings.push(Error::Cache { path, source: error }.to_string());
    }
    Ok(filter)
}

fn key(profile: &LinuxSeccomp, host: &Host) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(FORMAT);
    let parts = [env!("CARGO_PKG_VERSION"), &host.machine, &host.kernel];
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    // A profile always serialises; if it did not, nothing would match an empty one by accident.
    hash.update(serde_json::to_vec(profile).unwrap_or_else(|_| format!("{profile:?}").into_bytes()));
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the directory if need be, and refuses one that others own or can enter.
fn open_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(dir)?;
    if !meta.is_dir() || meta.uid() != own_uid() || meta.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "not a directory of ours with mode 0700",
        ));
    }
    Ok(())
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn read(path: &Path, key: &[u8; 32], profile: &LinuxSeccomp) -> Option<Filter> {
    let nofollow = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(nofollow).open(path).ok()?;
    let meta = file.metadata().ok()?;
    let ours = meta.is_file() && meta.uid() == own_uid() && meta.mode() & 0o022 == 0;
    if !ours || meta.len() > MAX_FILE {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).ok()?);
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    parse(&bytes, key, profile)
}

/// Layout: `FORMAT`, 32 bytes SHA-256 over key and rest, then flags, notify and the number of instructions (u32 each), the
/// instructions, all little endian, and the warnings, a line each.
fn parse(bytes: &[u8], key: &[u8; 32], profile: &LinuxSeccomp) -> Option<Filter> {
    let (sum, body) = bytes.strip_prefix(FORMAT)?.split_at_checked(32)?;
    if sum != checksum(key, body) {
        return None;
    }
    let (head, rest) = body.split_at_checked(12)?;
    let word = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_le_bytes);
    let length =
        usize::try_from(word(&head[8..])?).ok().filter(|length| (1..=MAX_INSTRUCTIONS).contains(length))?;
    let (code, warnings) = rest.split_at_checked(8 * length)?;
    let instruction = |bytes: &[u8]| {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        Some(SockFilter { code, jt: bytes[2], jf: bytes[3], k: word(&bytes[4..])? })
    };
    let program: Vec<SockFilter> = code.chunks_exact(8).map(instruction).collect::<Option<_>>()?;
    Some(Filter {
        program,
        flags: word(&head[..4])?,
        notify: word(&head[4..8])? != 0,
        listener_path: profile.listener_path().clone(),
        listener_metadata: profile.listener_metadata().clone(),
        warnings: std::str::from_utf8(warnings).ok()?.lines().map(str::to_owned).collect(),
    })
}

fn render(filter: &Filter, key: &[u8; 32]) -> Vec<u8> {
    let mut body = Vec::with_capacity(12 + 8 * filter.program.len());
    body.extend(filter.flags.to_le_bytes());
    body.extend(u32::from(filter.notify).to_le_bytes());
    body.extend(u32::try_from(filter.program.len()).unwrap_or(u32::MAX).to_le_bytes());
    for instruction in &filter.program {
        body.extend(instruction.code.to_le_bytes());
        body.extend([instruction.jt, instruction.jf]);
        body.extend(instruction.k.to_le_bytes());
    }
    body.extend(filter.warnings.join("\n").as_bytes());
    [FORMAT, &checksum(key, &body), &body].concat()
}

fn checksum(key: &[u8; 32], body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(key).chain_update(body).finalize().into()
}

fn write(dir: &Path, path: &Path, key: &[u8; 32], filter: &Filter) -> io::Result<()> {
    make_room(dir)?;
    let temporary = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    let result = create(&temporary)
        .and_then(|mut file| file.write_all(&render(filter, key)))
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn create(path: &Path) -> io::Result<File> {
    // Of a crashed process with our pid; nobody else can write here.
    let _ = fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Starts afresh when the directory is full: profiles that change all the time are not worth keeping.
fn make_room(dir: &Path) -> io::Result<()> {
    let files: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    if files.len() >= MAX_FILES {
        for file in files {
            let _ = fs::remove_file(file.path());
        }
    }
    Ok(())
}
