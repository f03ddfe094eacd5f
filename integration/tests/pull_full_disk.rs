//! An ext4 without a byte or an inode left: a clear error, nothing left behind, the next pull works, and removal needs no
//! space. Each test has its own file system on a loop device, in a mount namespace of its own.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coracle_integration::images::{self, Registry};
use coracle_integration::{privilege, require_root};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

fn ctl(root: &Path, arguments: &[&str]) -> Output {
    let program =
        std::env::var_os("CORACLECTL").map_or_else(|| "../target/debug/coraclectl".into(), PathBuf::from);
    Command::new(program).arg("--root").arg(root).args(arguments).output().unwrap()
}

#[track_caller]
fn succeeds(root: &Path, arguments: &[&str]) -> String {
    let output = ctl(root, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A registry with an image of three layers, the last two large enough to be kept as partial downloads.
struct Place {
    work: tempfile::TempDir,
    _registry: Registry,
    image: String,
}

fn place() -> Option<Place> {
    for program in ["docker-registry", "skopeo", "busybox", "mkfs.ext4", "losetup"] {
        if privilege::program(program).is_none() {
            privilege::record_skip(&privilege::test_name(), &format!("needs {program}"));
            return None;
        }
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let work = tempfile::tempdir().unwrap();
    let registry = Registry::start(work.path()).unwrap();
    let noise = work.path().join("noise");
    fs::create_dir(&noise).unwrap();
    let busybox = images::busybox_layer(work.path()).unwrap();
    let mut layers = vec![busybox];
    for (name, seed) in [("one", 1), ("two", 2)] {
        fs::write(noise.join(name), random(12 << 20, seed)).unwrap();
        layers.push(images::layer(work.path(), name, &noise).unwrap());
    }
    let archive = images::archive(work.path(), "app", &layers.iter().collect::<Vec<_>>()).unwrap();
    let image = registry.push(&archive, "app", &[]).unwrap();
    Some(Place { work, _registry: registry, image })
}

// What does not compress.
fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// An ext4 of this size and number of inodes; nothing of it is reserved for root.
struct Ext4 {
    path: PathBuf,
}

impl Ext4 {
    fn make(work: &Path, name: &str, megabytes: u64, inodes: u32) -> Self {
        let (image, path) = (work.join(format!("{name}.img")), work.join(name));
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let inodes = inodes.to_string();
        let options = ["-q", "-F", "-m", "0", "-b", "4096", "-I", "256", "-N", &inodes];
        assert!(Command::new("mkfs.ext4").args(options).arg(&image).status().unwrap().success());
        fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path).status().unwrap();
        assert!(mounted.success());
        Self { path }
    }

    fn root(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Free bytes and free inodes, everything pending written.
    fn free(&self) -> (u64, u64) {
        rustix::fs::syncfs(File::open(&self.path).unwrap()).unwrap();
        let status = rustix::fs::statvfs(&self.path).unwrap();
        (status.f_bavail * status.f_frsize, status.f_favail)
    }

    fn fill_inodes(&self) {
        let directory = self.path.join("inodes");
        fs::create_dir(&directory).unwrap();
        let full = (0..).find_map(|nth: u32| File::create(directory.join(nth.to_string())).err());
        assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(self.free().1, 0);
    }

    fn fill_bytes(&self, leave: u64) {
        let mut filler = File::create(self.path.join("bytes")).unwrap();
        for block in [1 << 20, 4096] {
            while self.free().0 >= leave + block {
                if filler.write_all(&vec![b'x'; block as usize]).is_err() {
                    break;
                }
            }
        }
        assert_eq!(self.free().0, leave);
    }

    fn make_room(&self) {
        let _ = fs::remove_file(self.path.join("bytes"));
        let _ = fs::remove_dir_all(self.path.join("inodes"));
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
    }
}

fn count(root: &Path, below: &str) -> usize {
    let entries = fs::read_dir(root.join(below)).map(|entries| entries.flatten().collect::<Vec<_>>());
    entries.map_or(0, |entries| {
        entries.iter().filter(|e| !e.file_name().as_encoded_bytes().starts_with(b".")).count()
    })
}

/// The pull fails for lack of space, says so, and leaves nothing; with room it works.
fn fails_and_recovers(place: &Place, disk: &Ext4, what: &str) {
    let before = disk.free();
    let full = ctl(&disk.root(), &["pull", &place.image]);
    failed_clean(disk, before, &full, what);
    disk.make_room();
    works(place, disk, what);
}

fn failed_clean(disk: &Ext4, before: (u64, u64), full: &Output, what: &str) {
    let root = disk.root();
    let text = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!(full.status.code(), Some(7), "{what}: {text}");
    assert!(text.contains("No space left") && text.contains("hint:"), "{what}: {text}");
    assert_eq!(disk.free(), before, "{what}: {text}");
    for directory in ["layers", "layers/.staging", "layers/.trash", "ingest", "leases", "images/refs"] {
        assert_eq!(count(&root, directory), 0, "{what}: {directory}");
    }
}

fn works(place: &Place, disk: &Ext4, what: &str) {
    let root = disk.root();
    succeeds(&root, &["pull", &place.image]);
    let report = succeeds(&root, &["fsck", "--json"]);
    assert!(report.contains(r#""findings": []"#), "{what}: {report}");
    assert_eq!(count(&root, "layers"), 3, "{what}");
}

#[test]
fn without_a_byte_a_pull_fails_clean() {
    require_root!();
    let Some(place) = place() else { return };
    // The store's own directories are there, or not even those; nothing, or too little for the last layers.
    for (name, opened, leave) in
        [("b0", true, 0), ("b1", false, 0), ("b2", true, 3 << 20), ("b3", true, 20 << 20)]
    {
        let disk = Ext4::make(place.work.path(), name, 96, 512);
        if opened {
            succeeds(&disk.root(), &["gc"]);
        }
        disk.fill_bytes(leave);
        if !opened {
            let full = ctl(&disk.root(), &["pull", &place.image]);
            assert_eq!(full.status.code(), Some(7), "{}", String::from_utf8_lossy(&full.stderr));
            disk.make_room();
            succeeds(&disk.root(), &["pull", &place.image]);
            continue;
        }
        fails_and_recovers(&place, &disk, &format!("{leave} bytes left"));
    }
}

#[test]
fn without_an_inode_a_pull_fails_clean() {
    require_root!();
    let Some(place) = place() else { return };
    let disk = Ext4::make(place.work.path(), "i0", 96, 64);
    succeeds(&disk.root(), &["gc"]);
    disk.fill_inodes();
    // One more each time: the last inode is missed at every step in turn.
    for left in 0.. {
        let before = disk.free();
        assert_eq!(before.1, left);
        let pulled = ctl(&disk.root(), &["pull", &place.image]);
        if pulled.status.success() {
            assert!(left > 10, "{left}");
            break;
        }
        failed_clean(&disk, before, &pulled, &format!("{left} inodes"));
        fs::remove_file(disk.path.join("inodes").join(left.to_string())).unwrap();
    }
    disk.make_room();
    works(&place, &disk, "inodes");
}

#[test]
fn removal_works_without_a_byte_or_an_inode() {
    require_root!();
    let Some(place) = place() else { return };
    let disk = Ext4::make(place.work.path(), "r0", 96, 64);
    let root = disk.root();
    succeeds(&root, &["pull", &place.image]);
    File::create(disk.path.join("bytes")).unwrap();
    disk.fill_inodes();
    disk.fill_bytes(0);
    assert_eq!(disk.free(), (0, 0));
    assert!(succeeds(&root, &["images", "-q"]).starts_with("sha256:"));
    succeeds(&root, &["fsck"]);
    succeeds(&root, &["rmi", &place.image]);
    let swept = succeeds(&root, &["gc"]);
    assert!(swept.contains("3 layers"), "{swept}");
    assert_eq!(
        (count(&root, "layers"), count(&root, "layers/.trash"), count(&root, "blobs/sha256")),
        (0, 0, 0)
    );
    assert!(disk.free().0 > 24 << 20, "{:?}", disk.free());
    // What the image had is free again; a pull needs a little more on its way than in the end.
    (0..8).for_each(|nth| fs::remove_file(disk.path.join("inodes").join(nth.to_string())).unwrap());
    let filler = File::options().write(true).open(disk.path.join("bytes")).unwrap();
    filler.set_len(filler.metadata().unwrap().len() - (1 << 20)).unwrap();
    succeeds(&root, &["pull", &place.image]);
    succeeds(&root, &["fsck"]);
}
