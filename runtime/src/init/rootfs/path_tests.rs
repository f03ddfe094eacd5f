use super::*;
use std::os::unix::fs::symlink;

fn in_root(dir: &Path) -> InRoot {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    InRoot::new(rustix::fs::open(dir, flags, Mode::empty()).unwrap())
}

fn same_file(fd: &OwnedFd, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (a, b) = (rustix::fs::fstat(fd).unwrap(), std::fs::symlink_metadata(path).unwrap());
    (a.st_dev, a.st_ino) == (b.dev(), b.ino())
}

/// A root with links out of it beside a victim.
fn hostile() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("real/sub")).unwrap();
    std::fs::create_dir(dir.path().join("victim")).unwrap();
    symlink("../../victim", root.join("up")).unwrap();
    symlink("/victim", root.join("absolute")).unwrap();
    symlink("real/sub", root.join("relative")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    (dir, root)
}

#[test]
fn links_end_inside_the_root_with_openat2_and_with_the_walk() {
    let (_dir, root) = hostile();
    let tree = in_root(&root);
    for (path, expected) in [
        ("/relative", Ok("real/sub")),
        ("relative/..", Ok("real")),
        ("/../../real/./sub", Ok("real/sub")),
        ("slash/real", Ok("real")),
        ("slash", Ok("")),
        ("/", Ok("")),
        ("up", Err(Errno::NOENT)),
        ("absolute", Err(Errno::NOENT)),
        ("loop", Err(Errno::LOOP)),
    ] {
        for found in [tree.open(Path::new(path)), tree.walk(Path::new(path), Missing::Fail)] {
            match (found, expected) {
                (Ok(fd), Ok(inner)) => assert!(same_file(&fd, &root.join(inner)), "{path}"),
                (Err(errno), Err(expected)) => assert_eq!(errno, expected, "{path}"),
                (found, _) => panic!("{path}: {found:?}, expected {expected:?}"),
            }
        }
    }
}

#[test]
fn what_is_missing_is_made_inside_the_root_also_through_dangling_links() {
    let (dir, root) = hostile();
    let tree = in_root(&root);
    tree.make_directory(Path::new("/up/a/b")).unwrap();
    assert!(root.join("victim/a/b").is_dir());
    tree.make_file(Path::new("absolute/f")).unwrap();
    assert!(root.join("victim/f").is_file());
    symlink("/run/made", root.join("resolv.conf")).unwrap();
    tree.make_file(Path::new("/resolv.conf")).unwrap();
    assert!(root.join("run/made").is_file());
    assert_eq!(std::fs::read_dir(dir.path().join("victim")).unwrap().count(), 0);
    assert_eq!(tree.make_directory(Path::new("run/made/x")).unwrap_err(), Errno::NOTDIR);
}

/// Names and targets that collide often, so that links chain, loop, dangle and climb.
fn component() -> impl proptest::strategy::Strategy<Value = String> {
    proptest::sample::select(vec!["a", "b", "c", "..", ".", "d"]).prop_map(str::to_owned)
}

fn path() -> impl proptest::strategy::Strategy<Value = String> {
    (proptest::bool::ANY, proptest::collection::vec(component(), 1..6))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

use proptest::strategy::Strategy;

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// The kernel's resolver is the oracle of the walk, and whatever the walk makes is inside the root.
    #[test]
    fn the_walk_agrees_with_openat2(
        directories in proptest::collection::vec(path(), 0..6),
        links in proptest::collection::vec((path(), path()), 0..8),
        lookups in proptest::collection::vec(path(), 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let tree = in_root(&root);
        for path in &directories {
            let _ = tree.walk(Path::new(path), Missing::MakeDirectory);
        }
        for (path, target) in &links {
            let Ok((parent, name)) = tree.make_parent(Path::new(path)) else { continue };
            let _ = rustix::fs::symlinkat(target.as_str(), parent, &name);
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for path in lookups.iter().map(Path::new) {
            let walked = tree.walk(path, Missing::Fail).map(inode);
            // A rename anywhere on the machine makes openat2 give up on `..`.
            let kernel = (0..100)
                .map(|_| rustix::fs::openat2(&tree.root, path, flags, Mode::empty(), resolve))
                .find(|opened| !matches!(opened, Err(rustix::io::Errno::AGAIN)))
                .unwrap_or(Err(rustix::io::Errno::AGAIN))
                .map(inode);
            // Both refuse, but the order in which a path is looked at decides whether it is called a loop or missing.
            match (walked, kernel) {
                (Err(_), Err(_)) => {}
                (walked, kernel) => proptest::prop_assert_eq!(walked, kernel, "{:?} {:?}", path, &links),
            }
            let _ = tree.make_directory(path);
        }
        let outside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        proptest::prop_assert_eq!(outside, ["root"]);
    }
}

fn inode(fd: OwnedFd) -> (u64, u64) {
    let stat = rustix::fs::fstat(fd).unwrap();
    (stat.st_dev, stat.st_ino)
}
