//! A file system whose server takes requests and never answers: who looks a name up in it cannot be killed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Operations of linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const HEADER: usize = 40;
const NOT_IMPLEMENTED: i32 = -38;

/// The mount; its root can be seen, and nothing in it. Ended by dropping it: then those who wait get an error.
pub struct StuckFs {
    at: PathBuf,
    server: Option<JoinHandle<()>>,
    /// Writing here aborts the connection.
    abort: Option<PathBuf>,
}

impl StuckFs {
    pub fn mount(at: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(at)?;
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("stuck"), at, Some("fuse"), MsFlags::empty(), Some(options.as_str()))?;
        let server = std::thread::spawn(move || serve(device));
        // The kernel numbers connections by the device of their mount.
        let minor = rustix::fs::minor(rustix::fs::stat(at)?.st_dev);
        let abort = PathBuf::from(format!("/sys/fs/fuse/connections/{minor}/abort"));
        let mut fs = Self { at: at.to_owned(), server: Some(server), abort: None };
        if !abort.exists() {
            // Not mounted in most containers.
            let control = at.with_extension("control");
            std::fs::create_dir_all(&control)?;
            mount(Some("control"), &control, Some("fusectl"), MsFlags::empty(), None::<&str>)?;
            fs.abort = Some(control.join(minor.to_string()).join("abort"));
        } else {
            fs.abort = Some(abort);
        }
        Ok(fs)
    }

    /// Gives everybody who waits an error.
    pub fn abort(&self) {
        if let Some(path) = &self.abort {
            std::fs::write(path, "1").expect("abort the connection");
        }
    }
}

impl Drop for StuckFs {
    fn drop(&mut self) {
        self.abort();
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        let _ = umount2(&self.at.with_extension("control"), MntFlags::MNT_DETACH);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn serve(mut device: File) {
    let mut buffer = vec![0u8; 1 << 20];
    // An error says that the connection was aborted.
    while let Ok(length @ HEADER..) = device.read(&mut buffer) {
        let word = |at: usize| u32::from_ne_bytes(buffer[at..at + 4].try_into().expect("four bytes"));
        let unique = &buffer[8..16];
        let answer = match word(4) {
            LOOKUP | FORGET | INTERRUPT | BATCH_FORGET => continue,
            INIT => reply(unique, 0, &init()),
            GETATTR => reply(unique, 0, &root_attributes()),
            _ => reply(unique, NOT_IMPLEMENTED, &[]),
        };
        debug_assert!(length >= HEADER);
        if device.write_all(&answer).is_err() {
            return;
        }
    }
}

fn reply(unique: &[u8], error: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("short");
    [&length.to_ne_bytes()[..], &error.to_ne_bytes(), unique, body].concat()
}

/// `fuse_init_out` of protocol 7.31.
fn init() -> Vec<u8> {
    let words: [u32; 5] = [7, 31, 0, 0, 0x0001_0001];
    let mut body: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    body.extend(4096u32.to_ne_bytes());
    body.resize(64, 0);
    body
}

/// `fuse_attr_out` of a directory, valid for an hour.
fn root_attributes() -> Vec<u8> {
    let mut body = Vec::with_capacity(104);
    body.extend(3600u64.to_ne_bytes());
    body.extend([0u8; 8]);
    body.extend(1u64.to_ne_bytes());
    body.extend([0u8; 5 * 8 + 3 * 4]);
    for word in [0o40755u32, 2, 0, 0, 0, 4096, 0] {
        body.extend(word.to_ne_bytes());
    }
    body
}
