//! What an index and its tar are to the kernel: files, or loop devices over them.
//!
//! Files from Linux 6.12.2 on (some earlier kernels panic on file-backed images with 512-byte blocks); loop devices from
//! 6.4 on, the first with blocks smaller than a page. A mount over loop devices takes two of them; they are given back
//! with the mount: detaching a device in use makes the kernel free it with its last user.
//!
//! Devices are attached by `losetup`, as this crate makes no raw system calls; only old kernels come here.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Error;

const FIRST_FILE: (u32, u32, u32) = (6, 12, 2);
const FIRST_LOOP: (u32, u32, u32) = (6, 4, 0);
/// More loop devices than this on a machine are no good: new layers are unpacked then.
const DEVICES: usize = 500;
/// Names the backing to use whatever the kernel's release is: `file` or `loop`.
pub const SWITCH: &str = "CORACLE_EROFS_BACKING";

/// How EROFS layers are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// From the files.
    File,
    /// From loop devices over the files.
    Loop,
}

impl Backing {
    /// What the switch says, else what the kernel's release allows.
    #[must_use]
    pub fn of_this_kernel() -> Option<Self> {
        match std::env::var(SWITCH).as_deref() {
            Ok("file") => Some(Self::File),
            Ok("loop") => Some(Self::Loop),
            _ => Self::of(&rustix::system::uname().release().to_string_lossy()),
        }
    }

    fn of(release: &str) -> Option<Self> {
        match parse_release(release)? {
            version if version >= FIRST_FILE => Some(Self::File),
            version if version >= FIRST_LOOP => Some(Self::Loop),
            _ => None,
        }
    }
}

/// A loop device over a file, detached when dropped: at once, or with the last mount of it.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) path: String,
}

impl Device {
    pub(super) fn attach(file: &Path) -> Result<Self, Error> {
        let output = losetup(&["--find", "--show", "--read-only"], file)
            .map_err(Error::io("attach a loop device to", file))?;
        Ok(Self { path: output })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = losetup(&["--detach"], Path::new(&self.path)) {
            tracing::warn!(device = self.path, %error, "loop device stays");
        }
    }
}

fn losetup(options: &[&str], path: &Path) -> io::Result<String> {
    let output = Command::new("losetup").args(options).arg(path).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let told: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(300).collect();
        return Err(io::Error::other(format!("losetup: {told}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether so many loop devices are in use that no more should be.
pub(super) fn devices_are_short() -> bool {
    let Ok(devices) = std::fs::read_dir("/sys/block") else { return false };
    let attached = devices.flatten().filter(|device| {
        device.file_name().as_encoded_bytes().starts_with(b"loop") && device.path().join("loop").exists()
    });
    attached.count() >= DEVICES
}

fn parse_release(release: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?, number().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (text, backing) in [
            ("6.18.44-fc-v509", Some(Backing::File)),
            ("6.12.2", Some(Backing::File)),
            ("6.14-rc3", Some(Backing::File)),
            ("6.12", Some(Backing::Loop)),
            ("6.12.1-1-amd64", Some(Backing::Loop)),
            ("6.8.0-45-generic", Some(Backing::Loop)),
            ("6.4", Some(Backing::Loop)),
            ("6.1.0-40-amd64", None),
            ("5.15.0", None),
            ("linux", None),
        ] {
            assert_eq!(Backing::of(text), backing, "{text}");
        }
    }
}
