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
