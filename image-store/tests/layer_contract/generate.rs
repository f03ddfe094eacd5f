//! Images made at random, the same for the same seed: few names, so that entries, links and whiteouts meet.

use std::collections::BTreeMap;

use crate::archive::{Archive, Member};

/// xorshift64*: good enough to choose, and the same everywhere.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    Linkable,
    Other,
}

/// What a layer holds so far.
type Layer = BTreeMap<String, Kind>;

/// One to five layers, from the lowest up.
pub fn image(seed: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    (0..1 + random.below(5)).map(|_| layer(&mut random)).collect()
}

fn layer(random: &mut Random) -> Vec<u8> {
    let mut archive = Archive::new();
    let mut state = Layer::from([(String::new(), Kind::Directory)]);
    archive.add(&decorated(Member::directory("./"), random, true));
    for _ in 0..random.below(25) {
        let parent = directory(&mut state, &mut archive, random);
        let name = name(random);
        let path = if parent.is_empty() { name.clone() } else { format!("{parent}/{name}") };
        entry(&path, &parent, &name, &mut state, &mut archive, random);
    }
    if random.one_in(8) {
        many_files(&mut state, &mut archive, random);
    }
    archive.into_bytes()
}

/// A directory of this layer, made with all above it.
fn directory(state: &mut Layer, archive: &mut Archive, random: &mut Random) -> String {
    let mut path = String::new();
    for _ in 0..random.below(4) {
        let next = if path.is_empty() { name(random) } else { format!("{path}/{}", name(random)) };
        if state.get(&next) != Some(&Kind::Directory) {
            forget(state, &next);
            state.insert(next.clone(), Kind::Directory);
            archive.add(&decorated(Member::directory(&format!("{next}/")), random, true));
        }
        path = next;
    }
    path
}

fn entry(
    path: &str,
    parent: &str,
    name: &str,
    state: &mut Layer,
    archive: &mut Archive,
    random: &mut Random,
) {
    let in_parent = |name: &str| if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
    let (member, kind) = match random.below(14) {
        0 => return archive.add(&Member::file(&in_parent(&format!(".wh.{name}")), b"")),
        1 => return archive.add(&Member::file(&in_parent(".wh..wh..opq"), b"")),
        2 => (Member::symlink(path, &target(random)), Kind::Other),
        3 => (Member::fifo(path), Kind::Linkable),
        4 => {
            let device = (1 + random.below(300) as u32, random.below(70_000) as u32);
            (Member::device(path, *random.pick(b"34"), device), Kind::Linkable)
        }
        5 | 6 => {
            let files: Vec<_> = state.iter().filter(|(_, kind)| **kind == Kind::Linkable).collect();
            if files.is_empty() {
                return;
            }
            let target = random.pick(&files).0.clone();
            // GNU tar can't replace a directory that the target is in.
            if target == path || target.starts_with(&format!("{path}/")) {
                return;
            }
            (Member::hard_link(path, &target), Kind::Linkable)
        }
        7 => (sparse(path, random), Kind::Linkable),
        8 => (Member::directory(path), Kind::Directory),
        _ => (Member::file(path, &contents(random)), Kind::Linkable),
    };
    // GNU tar replaces no directory that holds something, and adds a repeated one's attributes to the first one's.
    if state.get(path) == Some(&Kind::Directory) {
        return;
    }
    forget(state, path);
    state.insert(path.to_owned(), kind);
    let has_xattrs = matches!(member.kind, b'0' | b'5');
    archive.add(&decorated(member, random, has_xattrs));
}

fn forget(state: &mut Layer, path: &str) {
    let below = format!("{path}/");
    state.retain(|known, _| known != path && !known.starts_with(&below));
}

fn many_files(state: &mut Layer, archive: &mut Archive, random: &mut Random) {
    forget(state, "many");
    archive.add(&decorated(Member::directory("many"), random, true));
    for nth in 0..300 {
        let path = format!("many/{nth:x}{}", "-".repeat(random.below(200) as usize));
        archive.add(&Member::file(&path, format!("{nth}").as_bytes()));
    }
}

fn name(random: &mut Random) -> String {
    match random.below(40) {
        0 => "n".repeat(255),
        1 => "with space and \u{e4}".into(),
        2 => "!before dot".into(),
        _ => random.pick(&["a", "b", "c", "d", "e"]).to_string(),
    }
}

fn target(random: &mut Random) -> String {
    match random.below(6) {
        0 => "t".repeat(3000),
        1 => format!("/{}", "x/".repeat(230)),
        2 => "../../../etc/passwd".into(),
        _ => name(random),
    }
}

fn contents(random: &mut Random) -> Vec<u8> {
    let length = match random.below(6) {
        0 => 0,
        1 => *random.pick(&[1, 511, 512, 513, 4095, 4096, 4097]),
        2 => random.below(300_000),
        _ => random.below(3_000),
    };
    let seed = random.below(251);
    (0..length).map(|at| ((at * 7 + seed) % 251) as u8 + 1).collect()
}

/// A sparse file as GNU tar reads it: each extent but the last is of whole blocks.
fn sparse(path: &str, random: &mut Random) -> Member {
    let unit = *random.pick(&[512, 4096]);
    sparse_of(path, unit, random)
}

/// A sparse file of format 0.1 or 1.0, whose extents are multiples of a unit but the last.
pub fn sparse_of(path: &str, unit: u64, random: &mut Random) -> Member {
    let (mut map, mut data, mut at) = (Vec::new(), Vec::new(), 0_u64);
    for _ in 0..1 + random.below(6) {
        at += unit * random.below(20);
        let length = unit * (1 + random.below(12));
        let fill = random.below(200) as u8 + 1;
        map.push((at, length));
        data.extend(std::iter::repeat_n(fill, length as usize));
        at += length;
    }
    let cut = random.below(unit);
    if let Some(last) = map.last_mut() {
        last.1 -= cut;
        data.truncate(data.len() - cut as usize);
    }
    let size = at + random.below(3) * unit * 7;
    // GNU tar writes an empty extent at the end of a file that ends in a hole, and needs it.
    map.push((size, 0));
    let mut member = Member::file("GNUSparseFile.0/x", b"");
    let mut pax = |key: &str, value: String| member.pax.push((key.into(), value.into()));
    if random.one_in(2) {
        pax("GNU.sparse.major", "1".into());
        pax("GNU.sparse.minor", "0".into());
        pax("GNU.sparse.name", path.into());
        pax("GNU.sparse.realsize", size.to_string());
        let lines = map.iter().map(|(at, length)| format!("{at}\n{length}\n"));
        let mut head = format!("{}\n{}", map.len(), lines.collect::<String>()).into_bytes();
        head.resize(head.len().next_multiple_of(512), 0);
        data.splice(0..0, head);
    } else {
        pax("GNU.sparse.size", size.to_string());
        pax("GNU.sparse.numblocks", map.len().to_string());
        pax("GNU.sparse.name", path.into());
        let pairs: Vec<_> = map.iter().map(|(at, length)| format!("{at},{length}")).collect();
        pax("GNU.sparse.map", pairs.join(","));
    }
    Member { data, ..member }
}

fn decorated(mut member: Member, random: &mut Random, has_xattrs: bool) -> Member {
    member.mode = *random.pick(&[0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o000, 0o600]);
    if member.kind == b'5' {
        // GNU tar forgets to take back the bit that a new directory inherits. Packages have such directories.
        member.mode &= !0o2000;
    }
    member.uid = *random.pick(&[0, 0, 1000, 65_534, 100_000, 3_000_000_000]);
    member.gid = *random.pick(&[0, 0, 50, 2_147_483_648]);
    member.mtime = *random.pick(&[
        (1_700_000_000, 0),
        (0, 0),
        (1_600_000_000, 123_456_789),
        (-5, 0),
        (4_000_000_000, 1),
    ]);
    if has_xattrs && random.one_in(4) {
        for nth in 0..1 + random.below(3) {
            let value = (0..random.below(300)).map(|at| (at % 255) as u8).collect();
            member.pax.push((format!("SCHILY.xattr.user.name{nth}").into(), value));
        }
        if member.kind == b'0' {
            // VFS_CAP_REVISION_2 with CAP_NET_RAW.
            let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            member.pax.push((b"SCHILY.xattr.security.capability".to_vec(), capability.to_vec()));
        }
        if random.one_in(2) {
            member.pax.push((b"SCHILY.xattr.trusted.thing".to_vec(), b"t".to_vec()));
        }
    }
    member
}
