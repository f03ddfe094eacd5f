use super::*;

/// What runc (main) prints as `mountOptions` of `features`.
const RUNC: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev \
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind \
    rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
    rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared \
    silent slave strictatime suid symfollow sync tmpcopyup unbindable";

#[test]
fn the_table_is_sorted_and_is_runcs_list() {
    assert!(OPTIONS.is_sorted_by_key(|(name, _)| *name));
    assert_eq!(known_words().collect::<Vec<_>>(), RUNC.split_whitespace().collect::<Vec<_>>());
}

fn flags(words: &[&str]) -> (MountFlags, MountFlags) {
    let options = MountOptions::parse(words);
    (options.flags, options.cleared)
}

#[test]
fn the_last_word_wins() {
    let none = MountFlags::empty();
    for (words, set, cleared) in [
        (&["ro"][..], MountFlags::RDONLY, none),
        (&["ro", "rw"], none, MountFlags::RDONLY),
        (&["rw", "ro"], MountFlags::RDONLY, none),
        (&["nosuid", "noexec", "suid"], MountFlags::NOEXEC, MountFlags::NOSUID),
        (&["bind"], MountFlags::BIND, none),
        (&["rbind", "defaults"], MountFlags::BIND | MountFlags::REC, none),
        (&["iversion", "noiversion"], none, MS_I_VERSION),
        (&["nosymfollow", "lazytime"], MountFlags::NOSYMFOLLOW | MountFlags::LAZYTIME, none),
        (&["loud"], none, MountFlags::SILENT),
    ] {
        assert_eq!(flags(words), (set, cleared), "{words:?}");
    }
}

#[test]
fn each_word_sets_what_its_negation_clears() {
    for (set, clear) in [
        ("sync", "async"),
        ("noatime", "atime"),
        ("nodev", "dev"),
        ("nodiratime", "diratime"),
        ("noexec", "exec"),
        ("iversion", "noiversion"),
        ("lazytime", "nolazytime"),
        ("silent", "loud"),
        ("mand", "nomand"),
        ("relatime", "norelatime"),
        ("strictatime", "nostrictatime"),
        ("nosuid", "suid"),
        ("nosymfollow", "symfollow"),
        ("ro", "rw"),
    ] {
        let ((on, _), (_, off)) = (flags(&[set]), flags(&[clear]));
        assert_eq!(on, off, "{set} {clear}");
        assert!(!on.is_empty(), "{set}");
    }
}

#[test]
fn propagation_keeps_its_order_and_data_too() {
    let options = MountOptions::parse(&["rprivate", "mode=755", "shared", "size=64k", "gid=5", "unknown"]);
    assert_eq!(
        options.propagation,
        [MountPropagationFlags::PRIVATE | MountPropagationFlags::REC, MountPropagationFlags::SHARED]
    );
    assert_eq!(options.data_string(), "mode=755,size=64k,gid=5,unknown");
}

#[test]
fn recursive_attributes_as_mount_setattr_takes_them() {
    type A = MountAttrFlags;
    let tree = |set, clear| Some(TreeAttributes { set, clear });
    for (words, expected) in [
        (&["ro"][..], None),
        (&["rro"], tree(A::MOUNT_ATTR_RDONLY, A::empty())),
        (&["rro", "rrw"], tree(A::empty(), A::MOUNT_ATTR_RDONLY)),
        (&["rnosuid", "rexec"], tree(A::MOUNT_ATTR_NOSUID, A::MOUNT_ATTR_NOEXEC)),
        (&["rnoatime"], tree(A::MOUNT_ATTR_NOATIME, A::MOUNT_ATTR__ATIME)),
        (&["rnoatime", "rstrictatime"], tree(A::MOUNT_ATTR_STRICTATIME, A::MOUNT_ATTR__ATIME)),
        (&["rrelatime"], tree(A::empty(), A::MOUNT_ATTR__ATIME)),
        (&["ratime"], tree(A::empty(), A::MOUNT_ATTR__ATIME)),
        (&["rnodiratime"], tree(A::MOUNT_ATTR_NODIRATIME, A::empty())),
        (&["rdiratime"], tree(A::empty(), A::MOUNT_ATTR_NODIRATIME)),
        (&["rnosymfollow", "rnodev"], tree(A::MOUNT_ATTR_NOSYMFOLLOW | A::MOUNT_ATTR_NODEV, A::empty())),
    ] {
        assert_eq!(MountOptions::parse(words).tree, expected, "{words:?}");
    }
}

#[test]
fn extensions() {
    assert!(MountOptions::parse(&["tmpcopyup"]).copy_up);
    assert_eq!(MountOptions::parse(&["idmap"]).idmap, Some(false));
    assert_eq!(MountOptions::parse(&["ridmap"]).idmap, Some(true));
    assert_eq!(MountOptions::parse::<&str>(&[]), MountOptions::default());
}

#[test]
fn flags_are_split_between_mount_and_super_block() {
    let both = MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::SYNCHRONOUS | MountFlags::NOATIME;
    assert_eq!(
        attributes(both),
        MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOATIME
    );
    assert_eq!(super_flags(both), Some(vec!["ro", "sync"]));
    assert_eq!(super_flags(MS_I_VERSION), None);
    assert_eq!(super_flags(MountFlags::SILENT), None);
    let strict = attributes(MountFlags::STRICTATIME | MountFlags::NOATIME);
    assert_eq!(strict, MountAttrFlags::MOUNT_ATTR_STRICTATIME);
}

#[test]
fn only_words_of_propagation_name_the_roots() {
    assert_eq!(
        root_propagation("rslave"),
        Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
    );
    assert_eq!(root_propagation("ro"), None);
    assert_eq!(root_propagation("nonsense"), None);
}
