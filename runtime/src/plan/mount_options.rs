//! The options of a mount: what every word of `mounts[].options` means, as one table.
//!
//! The list is runc's (main, 2025): classic flags and their negations, propagation, recursive attributes, extensions.
//! What the table does not know is data for the filesystem and is passed on untouched, in order.

use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags};

/// `MS_REMOUNT`, which rustix keeps to itself.
pub const MS_REMOUNT: MountFlags = MountFlags::from_bits_retain(1 << 5);
/// `MS_I_VERSION`, which rustix does not name.
pub const MS_I_VERSION: MountFlags = MountFlags::from_bits_retain(1 << 23);

/// What one word does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Sets these `MS_*` flags.
    Set(MountFlags),
    /// Clears these `MS_*` flags.
    Clear(MountFlags),
    /// Changes the propagation after the mount, in the order of the words.
    Propagate(MountPropagationFlags),
    /// Sets these attributes on the whole tree.
    SetTree(MountAttrFlags),
    /// Clears these attributes on the whole tree.
    ClearTree(MountAttrFlags),
    /// A fresh tmpfs gets a copy of what it covers.
    CopyUp,
    /// The mount's ids are mapped: the top mount, or the whole tree.
    IdMap { recursive: bool },
    /// Means nothing, is accepted.
    Nothing,
}

use Meaning::{Clear, ClearTree, CopyUp, IdMap, Nothing, Propagate, Set, SetTree};

type A = MountAttrFlags;
type F = MountFlags;
type P = MountPropagationFlags;

/// Every word that is not data, sorted. `defaults` is in runc's list of flags and of data both: it is dropped here,
/// since no filesystem takes it.
pub const OPTIONS: &[(&str, Meaning)] = &[
    ("async", Clear(F::SYNCHRONOUS)),
    ("atime", Clear(F::NOATIME)),
    ("bind", Set(F::BIND)),
    ("defaults", Nothing),
    ("dev", Clear(F::NODEV)),
    ("diratime", Clear(F::NODIRATIME)),
    ("dirsync", Set(F::DIRSYNC)),
    ("exec", Clear(F::NOEXEC)),
    ("idmap", IdMap { recursive: false }),
    ("iversion", Set(MS_I_VERSION)),
    ("lazytime", Set(F::LAZYTIME)),
    ("loud", Clear(F::SILENT)),
    ("mand", Set(F::PERMIT_MANDATORY_FILE_LOCKING)),
    ("noatime", Set(F::NOATIME)),
    ("nodev", Set(F::NODEV)),
    ("nodiratime", Set(F::NODIRATIME)),
    ("noexec", Set(F::NOEXEC)),
    ("noiversion", Clear(MS_I_VERSION)),
    ("nolazytime", Clear(F::LAZYTIME)),
    ("nomand", Clear(F::PERMIT_MANDATORY_FILE_LOCKING)),
    ("norelatime", Clear(F::RELATIME)),
    ("nostrictatime", Clear(F::STRICTATIME)),
    ("nosuid", Set(F::NOSUID)),
    ("nosymfollow", Set(F::NOSYMFOLLOW)),
    ("private", Propagate(P::PRIVATE)),
    ("ratime", ClearTree(A::MOUNT_ATTR_NOATIME)),
    ("rbind", Set(F::BIND.union(F::REC))),
    ("rdev", ClearTree(A::MOUNT_ATTR_NODEV)),
    ("rdiratime", ClearTree(A::MOUNT_ATTR_NODIRATIME)),
    ("relatime", Set(F::RELATIME)),
    ("remount", Set(MS_REMOUNT)),
    ("rexec", ClearTree(A::MOUNT_ATTR_NOEXEC)),
    ("ridmap", IdMap { recursive: true }),
    ("rnoatime", SetTree(A::MOUNT_ATTR_NOATIME)),
    ("rnodev", SetTree(A::MOUNT_ATTR_NODEV)),
    ("rnodiratime", SetTree(A::MOUNT_ATTR_NODIRATIME)),
    ("rnoexec", SetTree(A::MOUNT_ATTR_NOEXEC)),
    ("rnorelatime", ClearTree(A::MOUNT_ATTR_RELATIME)),
    ("rnostrictatime", ClearTree(A::MOUNT_ATTR_STRICTATIME)),
    ("rnosuid", SetTree(A::MOUNT_ATTR_NOSUID)),
    ("rnosymfollow", SetTree(A::MOUNT_ATTR_NOSYMFOLLOW)),
    ("ro", Set(F::RDONLY)),
    ("rprivate", Propagate(P::PRIVATE.union(P::REC))),
    ("rrelatime", SetTree(A::MOUNT_ATTR_RELATIME)),
    ("rro", SetTree(A::MOUNT_ATTR_RDONLY)),
    ("rrw", ClearTree(A::MOUNT_ATTR_RDONLY)),
    ("rshared", Propagate(P::SHARED.union(P::REC))),
    ("rslave", Propagate(P::DOWNSTREAM.union(P::REC))),
    ("rstrictatime", SetTree(A::MOUNT_ATTR_STRICTATIME)),
    ("rsuid", ClearTree(A::MOUNT_ATTR_NOSUID)),
    ("rsymfollow", ClearTree(A::MOUNT_ATTR_NOSYMFOLLOW)),
    ("runbindable", Propagate(P::UNBINDABLE.union(P::REC))),
    ("rw", Clear(F::RDONLY)),
    ("shared", Propagate(P::SHARED)),
    ("silent", Set(F::SILENT)),
    ("slave", Propagate(P::DOWNSTREAM)),
    ("strictatime", Set(F::STRICTATIME)),
    ("suid", Clear(F::NOSUID)),
    ("symfollow", Clear(F::NOSYMFOLLOW)),
    ("sync", Set(F::SYNCHRONOUS)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagate(P::UNBINDABLE)),
];

/// Attributes that are set and cleared on a whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeAttributes {
    /// `attr_set` of mount_setattr(2).
    pub set: MountAttrFlags,
    /// `attr_clr` of mount_setattr(2).
    pub clear: MountAttrFlags,
}

/// All options of one mount, sorted by what they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Flags that are set.
    pub flags: MountFlags,
    /// Flags that were cleared by name: a locked one of them is an error.
    pub cleared: MountFlags,
    /// Propagation changes, in order.
    pub propagation: Vec<MountPropagationFlags>,
    /// Recursive attributes, if any was named.
    pub tree: Option<TreeAttributes>,
    /// `tmpcopyup`.
    pub copy_up: bool,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// Data for the filesystem, in order.
    pub data: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            flags: MountFlags::empty(),
            cleared: MountFlags::empty(),
            propagation: Vec::new(),
            tree: None,
            copy_up: false,
            idmap: None,
            data: Vec::new(),
        }
    }
}

impl MountOptions {
    /// Reads the words of `mounts[].options`; later ones win.
    #[must_use]
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Self {
        let mut options = Self::default();
        for word in words.iter().map(AsRef::as_ref) {
            match meaning(word) {
                Some(meaning) => options.apply(meaning),
                None => options.data.push(word.to_owned()),
            }
        }
        options
    }

    /// Tells whether the mount is a bind.
    #[must_use]
    pub fn is_bind(&self) -> bool {
        self.flags.contains(MountFlags::BIND)
    }

    /// The data as mount(2) takes it.
    #[must_use]
    pub fn data_string(&self) -> String {
        self.data.join(",")
    }

    fn apply(&mut self, meaning: Meaning) {
        match meaning {
            Set(flags) => {
                self.flags |= flags;
                self.cleared -= flags;
            }
            Clear(flags) => {
                self.flags -= flags;
                self.cleared |= flags;
            }
            Propagate(flags) => self.propagation.push(flags),
            SetTree(attributes) => self.change_tree(attributes, true),
            ClearTree(attributes) => self.change_tree(attributes, false),
            CopyUp => self.copy_up = true,
            IdMap { recursive } => self.idmap = Some(recursive),
            Nothing => {}
        }
    }

    fn change_tree(&mut self, attributes: MountAttrFlags, set: bool) {
        let none = TreeAttributes { set: MountAttrFlags::empty(), clear: MountAttrFlags::empty() };
        let tree = self.tree.get_or_insert(none);
        // MOUNT_ATTR_RELATIME is 0: the access time is an enumeration in a field of the mask, see mount_setattr(2):
        // a new value is set after the whole field is cleared, and a single bit of it can't be cleared.
        if MountAttrFlags::MOUNT_ATTR__ATIME.contains(attributes) {
            tree.set -= MountAttrFlags::MOUNT_ATTR__ATIME;
            tree.clear |= MountAttrFlags::MOUNT_ATTR__ATIME;
            if set {
                tree.set |= attributes;
            }
            return;
        }
        if set {
            tree.set |= attributes;
            tree.clear -= attributes;
        } else {
            tree.clear |= attributes;
            tree.set -= attributes;
        }
    }
}

/// Looks a word up.
#[must_use]
pub fn meaning(word: &str) -> Option<Meaning> {
    OPTIONS.binary_search_by(|(name, _)| (*name).cmp(word)).ok().map(|i| OPTIONS[i].1)
}

/// The words that `features` lists, sorted; like runc's, without the two of id mapping.
pub fn known_words() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|(_, m)| !matches!(m, IdMap { .. })).map(|(name, _)| *name)
}

/// The propagation that `linux.rootfsPropagation` names.
#[must_use]
pub fn root_propagation(word: &str) -> Option<MountPropagationFlags> {
    match meaning(word)? {
        Propagate(flags) => Some(flags),
        _ => None,
    }
}

/// The per-mount part of `MS_*` flags as attributes for fsmount(2) and mount_setattr(2).
#[must_use]
pub fn attributes(flags: MountFlags) -> MountAttrFlags {
    const PAIRS: [(F, A); 6] = [
        (F::RDONLY, A::MOUNT_ATTR_RDONLY),
        (F::NOSUID, A::MOUNT_ATTR_NOSUID),
        (F::NODEV, A::MOUNT_ATTR_NODEV),
        (F::NOEXEC, A::MOUNT_ATTR_NOEXEC),
        (F::NODIRATIME, A::MOUNT_ATTR_NODIRATIME),
        (F::NOSYMFOLLOW, A::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let mut out = A::empty();
    for (flag, attribute) in PAIRS {
        if flags.contains(flag) {
            out |= attribute;
        }
    }
    // mount(2) lets strictatime win over noatime, and relatime is what remains.
    if flags.contains(F::STRICTATIME) {
        out |= A::MOUNT_ATTR_STRICTATIME;
    } else if flags.contains(F::NOATIME) {
        out |= A::MOUNT_ATTR_NOATIME;
    }
    out
}

/// The super block's part of `MS_*` flags, as the keys of fsconfig(2); `None` where only mount(2) can set one.
#[must_use]
pub fn super_flags(flags: MountFlags) -> Option<Vec<&'static str>> {
    if flags.intersects(MS_I_VERSION.union(F::SILENT)) {
        return None;
    }
    const KEYS: [(F, &str); 5] = [
        (F::RDONLY, "ro"),
        (F::SYNCHRONOUS, "sync"),
        (F::DIRSYNC, "dirsync"),
        (F::PERMIT_MANDATORY_FILE_LOCKING, "mand"),
        (F::LAZYTIME, "lazytime"),
    ];
    Some(KEYS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, key)| *key).collect())
}

#[cfg(test)]
#[path = "mount_options_tests.rs"]
mod tests;
