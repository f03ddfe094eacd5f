//! What entries in a row come to.

use super::*;

fn entry(kind: EntryKind, path: &str, link: &str) -> Entry {
    Entry {
        path: path.into(),
        link: link.into(),
        kind,
        mode: 0o700,
        uid: 1,
        gid: 2,
        mtime: Timestamp { seconds: 3, nanoseconds: 4 },
        size: 0,
        extents: Vec::new(),
        xattrs: Vec::new(),
    }
}

/// `d name`, `f name`, `l name target`, `h name target`, `w` devices 0/0; gives the listing or the error.
fn apply(script: &[&str]) -> Result<Vec<String>, String> {
    let mut tree = LayerTree::new();
    for line in script {
        let mut words = line.split(' ');
        let (kind, path) = (words.next().unwrap(), words.next().unwrap());
        let kind = match kind {
            "d" => EntryKind::Directory,
            "f" => EntryKind::File,
            "l" => EntryKind::Symlink,
            "h" => EntryKind::HardLink,
            _ => EntryKind::CharDevice { major: 0, minor: 0 },
        };
        tree.apply(entry(kind, path, words.next().unwrap_or_default())).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            error.to_string() + &cause.unwrap_or_default()
        })?;
    }
    let mut lines = Vec::new();
    list(&tree, NodeId::ROOT, "", &mut lines);
    Ok(lines)
}

fn list(tree: &LayerTree, id: NodeId, path: &str, lines: &mut Vec<String>) {
    let Content::Directory { children, opaque, .. } = &tree.node(id).content else { return };
    if *opaque {
        lines.push(format!("{path}/ opaque"));
    }
    for (name, &child) in children {
        let path = format!("{path}/{}", String::from_utf8_lossy(name));
        match &tree.node(child).content {
            Content::Directory { .. } => lines.push(format!("{path}/")),
            Content::File { .. } => lines.push(format!("{path} #{}", child.index())),
            Content::Symlink(target) => lines.push(format!("{path} -> {}", String::from_utf8_lossy(target))),
            Content::CharDevice(0, 0) => lines.push(format!("{path} whiteout")),
            _ => lines.push(format!("{path} other")),
        }
        list(tree, child, &path, lines);
    }
}

#[test]
fn entries_in_order() {
    let cases: [(&[&str], &[&str]); 16] = [
        (&["f a", "f a"], &["/a #2"]),
        (&["f a/b/c"], &["/a/", "/a/b/", "/a/b/c #3"]),
        (&["d a", "f a/b", "d a/"], &["/a/", "/a/b #2"]),
        (&["d a", "f a/b", "f a"], &["/a #3"]),
        (&["f a", "d a"], &["/a/", "/a/ opaque"]),
        (&["f .wh.a"], &["/a whiteout"]),
        (&["f .wh.a", "f a"], &["/a #2"]),
        (&["f .wh.a", "d a"], &["/a/", "/a/ opaque"]),
        (&["f .wh.a", "f a/b"], &["/a/", "/a/ opaque", "/a/b #3"]),
        (&["f a", "f .wh.a"], &["/a #1"]),
        (&["d a", "f .wh.a"], &["/a/", "/a/ opaque"]),
        (&["f a/.wh..wh..opq", "f a/b"], &["/a/", "/a/ opaque", "/a/b #2"]),
        (&["f .wh..wh.plnk/x", "f .wh..wh.aufs"], &[]),
        (&["f a", "h b a", "f a"], &["/a #2", "/b #1"]),
        (&["l a b", "h c a"], &["/a -> b", "/c -> b"]),
        (&["f .wh..wh..opq"], &["/ opaque"]),
    ];
    for (script, expected) in cases {
        assert_eq!(apply(script).unwrap(), expected, "{script:?}");
    }
}

#[test]
fn parents_through_links_stay_in_the_layer() {
    for (script, expected) in [
        (
            &["d usr/lib", "l lib usr/lib", "f lib/x"][..],
            &["/lib -> usr/lib", "/usr/", "/usr/lib/", "/usr/lib/x #4"][..],
        ),
        (&["l a /b", "f a/x"], &["/a -> /b", "/b/", "/b/x #3"]),
        (&["l d/a ../../../b", "f d/a/x"], &["/b/", "/b/x #4", "/d/", "/d/a -> ../../../b"]),
        (&["l a b", "d b", "f b/f", "h c a/f"], &["/a -> b", "/b/", "/b/f #3", "/c #3"]),
    ] {
        assert_eq!(apply(script).unwrap(), expected, "{script:?}");
    }
}

#[test]
fn refused_entries() {
    for (script, reason) in [
        (&["f a", "f a/b"][..], "entry \"a/b\" has a parent that is no directory"),
        (&["l a a", "f a/b"], "entry \"a/b\" goes through too many symbolic links"),
        (&["h a b"], "entry \"a\": there is no file \"b\" to link to"),
        (&["d b", "h a b"], "entry \"a\": there is no file \"b\" to link to"),
        (&["f .wh.b", "h a b"], "entry \"a\": there is no file \"b\" to link to"),
        (&["l a a", "h b a/c"], "entry \"b\": there is no file \"a/c\" to link to"),
        (&["f a/../../b"], "entry \"a/../../b\": leads out of the layer"),
        (&["h a ../b"], "entry \"../b\": leads out of the layer"),
        (&["f x/.wh..."], "entry \"x/.wh...\" is a whiteout of nothing"),
        (&["f ."], "entry \".\" makes the root something else than a directory"),
        (&["l a"], "entry \"a\" is a symbolic link with no usable target"),
    ] {
        assert_eq!(apply(script).unwrap_err(), reason, "{script:?}");
    }
}

#[test]
fn attributes_that_could_deceive_an_overlay_are_dropped() {
    let mut tree = LayerTree::new();
    let mut directory = entry(EntryKind::Directory, "d", "");
    let names = [
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "security.selinux",
        "user.kept",
        "security.capability",
    ];
    directory.xattrs = names.map(|name| Xattr { name: name.into(), value: b"x".to_vec() }).to_vec();
    tree.apply(directory).unwrap();
    let node = tree.node(NodeId(1));
    assert_eq!(node.xattrs, [Xattr { name: b"user.kept".to_vec(), value: b"x".to_vec() }]);
    assert_eq!((node.mode, node.uid, node.gid, node.mtime.seconds), (0o700, 1, 2, 3));
    assert_eq!(tree.overlay_xattrs(NodeId(1)), []);
    tree.apply(entry(EntryKind::File, "d/.wh.x", "")).unwrap();
    assert_eq!(tree.overlay_xattrs(NodeId(1)), [(xattr::ORIGIN, &b""[..])]);
}

#[test]
fn huge_attributes_are_refused() {
    let mut file = entry(EntryKind::File, "f", "");
    file.xattrs = vec![Xattr { name: b"user.x".to_vec(), value: vec![0; 70_000] }];
    assert!(LayerTree::new().apply(file).is_err());
}
