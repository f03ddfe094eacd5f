//! One contract for both back ends of the layer store: what is seen through the mount equals what GNU tar extracts of the
//! same layers, one after the other, with whiteouts applied. Needs root (mounts, owners, devices).
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

#[path = "layer_contract/archive.rs"]
mod archive;
#[path = "layer_contract/generate.rs"]
mod generate;
#[path = "layer_contract/images.rs"]
mod images;
#[path = "layer_contract/oracle.rs"]
mod oracle;
#[path = "layer_contract/snapshot.rs"]
mod snapshot;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_image_store::layer::{
    BackEnd, Backing, DiffId, ErofsLayers, LayerStore, TreeLayers, mount_image, why_not_erofs,
};
use coracle_image_store::mount::{self, Lower, OverlayOptions};
use sha2::{Digest, Sha256};

use archive::{Archive, Member};
use generate::Random;

/// Records why a test can't run here; `true` when it can't.
fn skips(test: &str) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else {
        return false;
    };
    skip(test, reason);
    true
}

fn skip(test: &str, reason: &str) {
    use std::io::Write;
    eprintln!("SKIP {test}: {reason}");
    if let Ok(path) = std::env::var("CORACLE_SKIPS") {
        let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
        writeln!(file, "SKIP {test}: {reason}").unwrap();
    }
}

/// A directory of this test, on the file system of `CORACLE_TEST_ROOT` when that is set.
fn scratch() -> tempfile::TempDir {
    match std::env::var("CORACLE_TEST_ROOT") {
        Ok(root) => tempfile::tempdir_in(root).unwrap(),
        Err(_) => tempfile::tempdir().unwrap(),
    }
}

fn store(root: &Path, back_end: BackEnd) -> Box<dyn LayerStore> {
    match back_end {
        BackEnd::Erofs => Box::new(ErofsLayers::open(root).unwrap()),
        BackEnd::Tree => Box::new(TreeLayers::open(root).unwrap()),
    }
}

/// The loop devices of kernels before 6.12.2, in every test that compares trees.
fn check_over_loop_devices(tars: &[Vec<u8>], expected: &snapshot::Tree, scratch: &Path, what: &str) {
    let root = scratch.join("store-loop");
    let store = ErofsLayers::with_backing(&root, Backing::Loop).unwrap();
    check_with(&store, &root, tars, expected, &format!("{what} over loop devices"));
}

fn back_ends(root: &Path) -> Vec<BackEnd> {
    match why_not_erofs(root).unwrap() {
        None => vec![BackEnd::Erofs, BackEnd::Tree],
        Some(reason) => {
            skip("erofs_back_end", &reason);
            vec![BackEnd::Tree]
        }
    }
}

fn diff_id(tar: &[u8]) -> DiffId {
    DiffId::from_bytes(Sha256::digest(tar).into())
}

fn commit(store: &dyn LayerStore, tar: &[u8], random: &mut Random) -> DiffId {
    let id = diff_id(tar);
    let mut writer = store.begin(id).unwrap();
    let mut rest = tar;
    while !rest.is_empty() {
        // Pieces of every size, also such that end within headers.
        let most = if random.below(4) == 0 { 700 } else { 1 << 18 };
        let (piece, later) = rest.split_at(rest.len().min(1 + random.below(most) as usize));
        writer.write(piece).unwrap();
        rest = later;
    }
    let layer = writer.finish().unwrap_or_else(|error| panic!("{id}: {error:?}"));
    assert_eq!(layer.tar_size, tar.len() as u64);
    store.verify(&id).unwrap();
    id
}

/// Checks one image, given as layers from the lowest up, on one back end.
fn check(tars: &[Vec<u8>], expected: &snapshot::Tree, back_end: BackEnd, scratch: &Path, what: &str) {
    let root = scratch.join(format!("store-{back_end:?}"));
    let store = store(&root, back_end);
    check_with(&*store, &root, tars, expected, &format!("{what} on {back_end:?}"));
    if back_end == BackEnd::Erofs {
        check_over_loop_devices(tars, expected, scratch, what);
    }
}

fn check_with(store: &dyn LayerStore, root: &Path, tars: &[Vec<u8>], expected: &snapshot::Tree, what: &str) {
    let mut random = Random::new(tars.len() as u64);
    let ids: Vec<_> = tars.iter().map(|tar| commit(store, tar, &mut random)).collect();
    let back_end = ids.first().map_or(BackEnd::Tree, |id| store.open(id).unwrap().back_end);
    if back_end == BackEnd::Erofs {
        ids.iter().for_each(|id| fsck(&store.open(id).unwrap().path));
    }
    if back_end == BackEnd::Erofs && tars.len().is_multiple_of(2) {
        // Old layers are mounted with direct reads.
        ids.iter().for_each(|id| make_old(&store.open(id).unwrap().path.join("layer.tar")));
    }
    let mounts = mount_image(store, &ids).unwrap();
    let mut lowers: Vec<_> = mounts.iter().map(|mount| Lower::Fd(mount.as_fd())).collect();
    let (empty, target) = (root.join("empty"), root.join("target"));
    [&empty, &target].iter().for_each(|directory| fs::create_dir_all(directory).unwrap());
    // Read-only, so that the root's own attributes are the layers'; that takes two lowers.
    lowers.push(Lower::Path(&empty));
    let merged = mount::overlay(&lowers, None, &OverlayOptions::default()).unwrap();
    mount::attach(merged.as_fd(), &target).unwrap();
    let mut seen = snapshot::read(&target);
    snapshot::forget_root_time(&mut seen);
    if tars.len() > 1 {
        snapshot::forget_links(&mut seen);
    }
    mount::detach(&target).unwrap();
    snapshot::assert_equal(&seen, expected, what);
    drop((merged, mounts));
    for id in ids {
        let _ = store.remove(&id);
    }
    assert_eq!(store.list().unwrap(), []);
    fs::remove_dir_all(root).unwrap();
}

fn make_old(path: &Path) {
    fs::File::options().write(true).open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
}

/// `fsck.erofs` from 1.6 on knows 512-byte blocks; `CORACLE_FSCK_EROFS` names one.
fn fsck(layer: &Path) {
    let Ok(program) = std::env::var("CORACLE_FSCK_EROFS") else { return };
    let device = format!("--device={}", layer.join("layer.tar").display());
    let output =
        Command::new(program).arg(device).arg("--extract").arg(layer.join("index.erofs")).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {text}", layer.display());
}

fn compare(tars: &[Vec<u8>], scratch: &Path, what: &str) {
    let extracted = scratch.join("extracted");
    fs::create_dir(&extracted).unwrap();
    tars.iter().for_each(|tar| oracle::extract(tar, &extracted, scratch));
    let mut expected = snapshot::read(&extracted);
    snapshot::forget_root_time(&mut expected);
    if tars.len() > 1 {
        snapshot::forget_links(&mut expected);
    }
    for back_end in back_ends(scratch) {
        check(tars, &expected, back_end, scratch, what);
    }
    fs::remove_dir_all(&extracted).unwrap();
}

/// Mounts of the tests stay in a namespace of their own and vanish with it.
fn private_mounts() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .unwrap();
}

#[test]
fn generated_layers_equal_gnu_tar() {
    if skips("generated_layers_equal_gnu_tar") {
        return;
    }
    private_mounts();
    let scratch = scratch();
    let wanted: usize = std::env::var("CORACLE_LAYERS").map_or(500, |count| count.parse().unwrap());
    let (mut layers, mut seed) = (0, 1);
    while layers < wanted {
        let image = generate::image(seed);
        layers += image.len();
        compare(&image, scratch.path(), &format!("image of seed {seed}"));
        seed += 1;
    }
}

#[test]
fn debian_packages_equal_gnu_tar() {
    if skips("debian_packages_equal_gnu_tar") {
        return;
    }
    private_mounts();
    let scratch = scratch();
    let Some(images) = images::all() else {
        return skip("debian_packages_equal_gnu_tar", "apt-get download gave no packages");
    };
    assert!(images.len() >= 8);
    for (name, tars) in images {
        compare(&tars, scratch.path(), &name);
    }
}

#[test]
fn a_layer_may_come_twice_in_an_image() {
    if skips("a_layer_may_come_twice_in_an_image") {
        return;
    }
    private_mounts();
    let scratch = scratch();
    let layer = |members: &[Member]| {
        let mut archive = Archive::new();
        members.iter().for_each(|member| archive.add(member));
        archive.into_bytes()
    };
    let twice = layer(&[Member::directory("d"), Member::file("d/a", b"twice"), Member::file("d/.wh.b", b"")]);
    let base = layer(&[Member::directory("d"), Member::file("d/b", b"base")]);
    let between =
        layer(&[Member::directory("d"), Member::file("d/a", b"between"), Member::file("d/b", b"between")]);
    compare(&[base, twice.clone(), between, twice], scratch.path(), "twice");
}

/// GNU tar begins a block for each extent, all others read them without gaps: here the files are known.
#[test]
fn sparse_files_with_unaligned_extents() {
    if skips("sparse_files_with_unaligned_extents") {
        return;
    }
    private_mounts();
    let scratch = scratch();
    let mut random = Random::new(3);
    let mut archive = Archive::new();
    for nth in 0..60 {
        let unit = [1, 100, 1000][nth % 3];
        archive.add(&generate::sparse_of(&format!("file{nth}"), unit, &mut random));
    }
    let far = [("GNU.sparse.size", "6442450945"), ("GNU.sparse.map", "5000000000,3,6442450944,1")];
    let mut member = Member::file("far", b"abcd");
    member.pax = far.map(|(key, value)| (key.into(), value.into())).to_vec();
    archive.add(&member);
    let tar = archive.into_bytes();
    let mut seen = Vec::new();
    for back_end in back_ends(scratch.path()) {
        let store = store(&scratch.path().join(format!("{back_end:?}")), back_end);
        let id = commit(&*store, &tar, &mut random);
        let target = scratch.path().join(format!("target-{back_end:?}"));
        fs::create_dir(&target).unwrap();
        mount::attach(store.mount(&id).unwrap().as_fd(), &target).unwrap();
        let file = fs::File::open(target.join("far")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 6_442_450_945);
        let mut buffer = [9; 5];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, 4_999_999_999).unwrap();
        assert_eq!(&buffer, b"\0abc\0");
        assert_eq!(std::os::unix::fs::FileExt::read_at(&file, &mut buffer, 6_442_450_943).unwrap(), 2);
        assert_eq!(&buffer[..2], b"\0d");
        drop(file);
        let files = (0..60).map(|nth| fs::read(target.join(format!("file{nth}"))).unwrap());
        seen.push(files.collect::<Vec<_>>());
        mount::detach(&target).unwrap();
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(seen[0].iter().all(|file| file.iter().any(|&byte| byte != 0)));
}

#[test]
fn archives_written_by_gnu_tar_in_every_format() {
    if skips("archives_written_by_gnu_tar_in_every_format") {
        return;
    }
    private_mounts();
    let scratch = scratch();
    let source = scratch.path().join("source");
    images::make_source_tree(&source);
    for options in [
        &["--format=gnu", "--sparse"][..],
        &["--format=oldgnu"],
        &["--format=v7"],
        &["--format=ustar"],
        &["--format=pax", "--sparse", "--sparse-version=0.0", "--xattrs"],
        &["--format=pax", "--sparse", "--sparse-version=0.1", "--xattrs"],
        &["--format=pax", "--sparse", "--sparse-version=1.0", "--xattrs"],
        &["--format=posix", "--pax-option=globexthdr.name=x,comment=hello", "--xattrs"],
    ] {
        let mut command = Command::new("tar");
        command.arg("-C").arg(&source).args(["-c", "--numeric-owner", "--sort=name"]).args(options);
        if matches!(options[0], "--format=v7" | "--format=ustar") {
            // Names, numbers and devices that these formats can't hold.
            command.args(["--exclude=*long*", "--exclude=*big*", "--exclude=*fifo*", "--exclude=*device*"]);
        }
        let output = command.arg(".").output().unwrap();
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        compare(&[output.stdout], scratch.path(), &format!("{options:?}"));
    }
}

#[test]
fn a_tar_without_padding_or_end_is_whole() {
    if skips("a_tar_without_padding_or_end_is_whole") {
        return;
    }
    private_mounts();
    let scratch = scratch();
    let mut archive = Archive::new();
    archive.add(&Member::directory("."));
    archive.add(&Member::file("last", b"x".repeat(700).as_slice()));
    let mut tar = archive.into_bytes_without_end();
    tar.truncate(tar.len() - (512 - (700 - 512)));
    let extracted = scratch.path().join("extracted");
    fs::create_dir(&extracted).unwrap();
    let mut padded = tar.clone();
    padded.resize(padded.len().next_multiple_of(512) + 1024, 0);
    oracle::extract(&padded, &extracted, scratch.path());
    let mut expected = snapshot::read(&extracted);
    snapshot::forget_root_time(&mut expected);
    for back_end in back_ends(scratch.path()) {
        check(&[tar.clone()], &expected, back_end, scratch.path(), "unpadded");
    }
}

#[test]
fn damage_is_found_and_a_layer_can_be_written_again() {
    if skips("damage_is_found_and_a_layer_can_be_written_again") {
        return;
    }
    let scratch = scratch();
    let tar = generate::image(7).remove(0);
    for back_end in back_ends(scratch.path()) {
        let root = scratch.path().join(format!("damage-{back_end:?}"));
        let store = store(&root, back_end);
        let id = commit(&*store, &tar, &mut Random::new(1));
        let layer = store.open(&id).unwrap();
        for file in damageable(&layer.path) {
            let bytes = fs::read(&file).unwrap();
            let mut damaged = bytes.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            fs::write(&file, &damaged).unwrap();
            let is_record = file.ends_with("layer.json");
            assert!(store.verify(&id).is_err() || is_record, "{}", file.display());
            fs::write(&file, &bytes).unwrap();
        }
        fs::remove_file(layer.path.join("layer.json")).unwrap();
        assert!(store.open(&id).is_err());
        commit(&*store, &tar, &mut Random::new(2));
        store.remove(&id).unwrap();
        assert_eq!(store.usage().unwrap().inodes, 3);
    }
}

fn damageable(layer: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![layer.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if metadata.is_file() && metadata.len() > 0 && metadata.len() < 1 << 22 {
            files.push(path);
        }
    }
    files
}

#[test]
fn refused_layers_leave_nothing() {
    if skips("refused_layers_leave_nothing") {
        return;
    }
    let scratch = scratch();
    let archive = |members: &[Member]| {
        let mut archive = Archive::new();
        members.iter().for_each(|member| archive.add(member));
        archive.into_bytes()
    };
    let good = archive(&[Member::file("a", b"a")]);
    let mut wrong_checksum = good.clone();
    wrong_checksum[0] ^= 1;
    let cases = [
        ("escapes", archive(&[Member::file("../a", b"")])),
        ("hard link", archive(&[Member::hard_link("a", "missing")])),
        ("file as parent", archive(&[Member::file("a", b""), Member::file("a/b", b"")])),
        ("whiteout of ..", archive(&[Member::file(".wh...", b"")])),
        ("loop", archive(&[Member::symlink("a", "a"), Member::file("a/b", b"")])),
        ("truncated", good[..512].to_vec()),
        ("checksum", wrong_checksum),
    ];
    for back_end in back_ends(scratch.path()) {
        let store = store(&scratch.path().join(format!("refused-{back_end:?}")), back_end);
        for (what, tar) in &cases {
            let mut writer = store.begin(diff_id(tar)).unwrap();
            let result = writer.write(tar).and_then(|()| writer.finish());
            assert!(result.is_err(), "{what}");
        }
        let mut writer = store.begin(diff_id(b"something else")).unwrap();
        writer.write(&good).unwrap();
        assert!(writer.finish().is_err());
        assert_eq!(store.usage().unwrap().inodes, 3, "{back_end:?}");
    }
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    if skips("a_full_disk_is_an_error_that_leaves_nothing") {
        return;
    }
    private_mounts();
    let scratch = scratch();
    let small = scratch.path().join("small");
    fs::create_dir(&small).unwrap();
    for (options, files, size) in [(c"size=1m", 1, 2 << 20), (c"size=64m,nr_inodes=16", 100, 10)] {
        rustix::mount::mount("coracle-test", &small, "tmpfs", rustix::mount::MountFlags::empty(), options)
            .unwrap();
        let mut archive = Archive::new();
        (0..files).for_each(|nth| archive.add(&Member::file(&format!("f{nth}"), &vec![b'x'; size])));
        let tar = archive.into_bytes();
        let inodes_matter = files > 1;
        for back_end in back_ends(scratch.path()) {
            if inodes_matter && back_end == BackEnd::Erofs {
                continue;
            }
            let store = store(&small.join(format!("{back_end:?}")), back_end);
            let mut writer = store.begin(diff_id(&tar)).unwrap();
            let error = writer.write(&tar).and_then(|()| writer.finish()).unwrap_err();
            use coracle_image_store::error::{ErrorKind, Kind};
            assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
            assert_eq!(store.usage().unwrap().inodes, 3);
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("No space left"));
        }
        mount::detach(&small).unwrap();
    }
}

#[test]
fn a_sweep_takes_what_dead_writers_left_and_nothing_else() {
    let scratch = scratch();
    let store = store(scratch.path(), BackEnd::Tree);
    let id = diff_id(b"");
    let writer = store.begin(id).unwrap();
    fs::create_dir(scratch.path().join("layers/.staging").join(format!("{}.1.1", id.hex()))).unwrap();
    fs::create_dir(scratch.path().join("layers/.trash").join(format!("{}.1.1", id.hex()))).unwrap();
    assert_eq!(store.sweep().unwrap(), 2);
    assert_eq!(store.sweep().unwrap(), 0);
    let other = store.begin(id).unwrap();
    drop(writer);
    assert_eq!(store.sweep().unwrap(), 0);
    if rustix::process::geteuid().is_root() {
        other.finish().unwrap();
        assert_eq!(store.list().unwrap(), [id]);
    }
}

#[test]
fn loop_devices_go_with_their_mount() {
    if skips("loop_devices_go_with_their_mount") {
        return;
    }
    let scratch = scratch();
    if let Some(reason) = why_not_erofs(scratch.path()).unwrap() {
        return skip("loop_devices_go_with_their_mount", &reason);
    }
    let store = ErofsLayers::with_backing(scratch.path(), Backing::Loop).unwrap();
    let id = commit(&store, &generate::image(3).remove(0), &mut Random::new(1));
    let layer = store.open(&id).unwrap().path;
    let attached = || {
        let backing = |device: fs::DirEntry| fs::read_to_string(device.path().join("loop/backing_file")).ok();
        let files = fs::read_dir("/sys/block").unwrap().flatten().filter_map(backing);
        files.filter(|file| file.starts_with(layer.to_str().unwrap())).count()
    };
    let mount = store.mount(&id).unwrap();
    assert_eq!(attached(), 2);
    drop(mount);
    // The kernel ends a mount, and what it held, a little after its last descriptor.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while attached() > 0 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(attached(), 0);
}
