//! Images made of Debian packages, one package a layer, and a tree for GNU tar to archive.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::archive::{Archive, Member};

const IMAGES: [(&str, &[&str]); 9] = [
    ("shell", &["base-files", "bash", "dash"]),
    ("core", &["base-files", "libc6", "coreutils"]),
    ("zones", &["netbase", "tzdata"]),
    ("perl", &["perl-base", "tar", "gzip"]),
    ("accounts", &["passwd", "login"]),
    ("tools", &["util-linux", "mount", "findutils", "grep", "sed"]),
    ("nginx", &["base-files", "nginx-common", "nginx"]),
    ("busybox", &["base-files", "busybox-static"]),
    ("packaging", &["dpkg", "apt"]),
];

/// Each image's layers, the packages' own tars and one that deletes; `None` where packages can't be had.
pub fn all() -> Option<Vec<(String, Vec<Vec<u8>>)>> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("debs");
    fs::create_dir_all(&directory).unwrap();
    IMAGES
        .iter()
        .map(|(name, packages)| {
            let mut tars =
                packages.iter().map(|package| tar_of(package, &directory)).collect::<Option<Vec<_>>>()?;
            tars.push(deletions(&tars));
            Some(((*name).to_owned(), tars))
        })
        .collect()
}

fn tar_of(package: &str, directory: &Path) -> Option<Vec<u8>> {
    let cached = || {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        })
    };
    if cached().is_none() {
        let mut command = Command::new("apt-get");
        command
            .args(["-q", "download", package])
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().ok()?;
    }
    let output = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(cached()?).output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// A layer that deletes every fifth file below `usr/share`, and makes a directory opaque.
fn deletions(tars: &[Vec<u8>]) -> Vec<u8> {
    let mut child = Command::new("tar")
        .args(["-t", "--quoting-style=literal"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, last) = (child.stdin.take().unwrap(), tars.last().unwrap().clone());
    // A closed pipe is tar's right once it has seen the end.
    let feeder = std::thread::spawn(move || drop(std::io::Write::write_all(&mut input, &last)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = listing.lines().filter(|line| line.starts_with("./usr/share/") && !line.ends_with('/'));
    let mut archive = Archive::new();
    let mut made = std::collections::BTreeSet::new();
    let parents = |path: &Path, archive: &mut Archive, made: &mut std::collections::BTreeSet<PathBuf>| {
        let mut above: Vec<_> = path.ancestors().skip(1).map(Path::to_owned).collect();
        above.reverse();
        for directory in above {
            if !directory.as_os_str().is_empty() && made.insert(directory.clone()) {
                archive.add(&Member::directory(&directory.to_string_lossy()));
            }
        }
    };
    for (nth, name) in names.enumerate().filter(|(nth, _)| nth % 5 == 0) {
        let path = Path::new(name);
        parents(path, &mut archive, &mut made);
        let parent = path.parent().unwrap();
        let whiteout = format!(".wh.{}", String::from_utf8_lossy(path.file_name().unwrap().as_bytes()));
        archive.add(&Member::file(&parent.join(whiteout).to_string_lossy(), b""));
        if nth == 0 {
            archive.add(&Member::file(&parent.join(".wh..wh..opq").to_string_lossy(), b""));
            archive.add(&Member::file(&parent.join("new").to_string_lossy(), b"new"));
        }
    }
    archive.into_bytes()
}

/// Files of every kind that a file system has.
pub fn make_source_tree(root: &Path) {
    let long = "long-".repeat(40);
    for directory in ["a/b/c".to_owned(), "empty".into(), format!("{long}/{long}/{long}")] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("a/file"), "contents").unwrap();
    fs::write(root.join("a/empty"), "").unwrap();
    fs::write(root.join(format!("{long}/{long}/{long}/file")), b"deep".repeat(500)).unwrap();
    fs::hard_link(root.join("a/file"), root.join("a/b/linked")).unwrap();
    symlink("../file", root.join("a/b/symlink")).unwrap();
    symlink(format!("/{long}/{long}"), root.join("a/symlink-long")).unwrap();
    for (name, mode) in [("suid", 0o4755), ("sticky", 0o1666)] {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(root.join("sticky"), Some(1000), Some(2000)).unwrap();
    fs::write(root.join("a/owner-big"), "x").unwrap();
    std::os::unix::fs::chown(root.join("a/owner-big"), Some(3_000_000_000), Some(3_000_000)).unwrap();
    let sparse = fs::File::create(root.join("sparse-big")).unwrap();
    for nth in 0..40_u64 {
        sparse.write_all_at(&[nth as u8 + 1; 5000], nth * (1 << 20) + 123).unwrap();
    }
    sparse.set_len(60 << 20).unwrap();
    let hole = fs::File::create(root.join("hole-big")).unwrap();
    hole.set_len(1 << 20).unwrap();
    for arguments in [&["fifo", "p"][..], &["device-c", "c", "1", "3"], &["device-b", "b", "300", "70000"]] {
        assert!(Command::new("mknod").args(arguments).current_dir(root).status().unwrap().success());
    }
    rustix::fs::setxattr(root.join("a/file"), "user.one", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("a"), "user.two", &[0, 1, 10, 61], rustix::fs::XattrFlags::empty())
        .unwrap();
}
