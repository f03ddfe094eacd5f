//! GNU tar, and whiteouts applied by hand before each layer, as the image specification has it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Extracts one layer over the ones before.
pub fn extract(tar: &[u8], into: &Path, scratch: &Path) {
    let archive = scratch.join("oracle.tar");
    fs::write(&archive, tar).unwrap();
    apply_whiteouts(&archive, into);
    let output = Command::new("tar")
        .args(["--extract", "--absolute-names", "--numeric-owner", "--preserve-permissions", "--same-owner"])
        .args(["--delay-directory-restore", "--xattrs", "--xattrs-include=*", "--exclude=.wh.*", "--file"])
        .arg(&archive)
        .arg("-C")
        .arg(into)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let kept = std::env::temp_dir().join("coracle-refused.tar");
        fs::copy(&archive, &kept).unwrap();
        panic!("tar refuses {}: {text}", kept.display());
    }
    fs::remove_file(&archive).unwrap();
}

fn apply_whiteouts(archive: &Path, into: &Path) {
    let (names, types) = (list(archive, "--quoting-style=literal"), list(archive, "--verbose"));
    assert_eq!(names.len(), types.len());
    for (line, kind) in names.iter().zip(types) {
        let path = Path::new(std::ffi::OsStr::from_bytes(line));
        // It adds a directory's attributes to those that are there.
        if kind[0] == b'd' && is_directory(&into.join(path)) {
            forget_xattrs(&into.join(path));
        }
        let Some(name) = path.file_name() else { continue };
        // GNU tar replaces no directory that holds something.
        let Some(name) = name.as_bytes().strip_prefix(b".wh.") else {
            if kind[0] != b'd' && is_directory(&into.join(path)) {
                remove(&into.join(path));
            }
            continue;
        };
        let parent = into.join(path.parent().unwrap());
        // What is no directory below is replaced anyway.
        if !is_directory(&parent) {
            continue;
        }
        if name == b".wh..opq" {
            fs::read_dir(&parent).unwrap().for_each(|entry| remove(&entry.unwrap().path()));
        } else {
            remove(&parent.join(std::ffi::OsStr::from_bytes(name)));
        }
    }
}

fn list(archive: &Path, how: &str) -> Vec<Vec<u8>> {
    let mut command = Command::new("tar");
    command.args(["--list", how, "--file"]).arg(archive).stderr(Stdio::null());
    let lines = command.output().unwrap().stdout;
    lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

fn forget_xattrs(path: &Path) {
    let mut list = vec![0_u8; 65_536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    for name in list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        rustix::fs::lremovexattr(path, name).unwrap();
    }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}
