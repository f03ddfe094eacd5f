//! Streams made to break the parser: whatever comes, it answers with events or an error, in bounded memory, the same
//! however the stream is cut. Mutations of valid archives reach further than noise.
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use coracle_image_store::error::Kind;
use coracle_image_store::layer::{ErofsLayers, LayerStore};
use coracle_image_store::tar::{Event, Walker};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

#[path = "layer_contract/archive.rs"]
#[allow(dead_code)]
mod archive;
#[path = "layer_contract/generate.rs"]
#[allow(dead_code)]
mod generate;

use generate::Random;

/// Walks a stream in pieces; gives the number of entries and of data bytes.
fn walk(tar: &[u8], piece: usize) -> Result<(usize, u64), String> {
    let mut walker = Walker::new();
    let (mut entries, mut data) = (0, 0);
    for mut rest in tar.chunks(piece) {
        while let Some(event) = walker.next(&mut rest).map_err(|error| error.to_string())? {
            match event {
                Event::Entry(entry) => {
                    entries += 1;
                    let ends: Vec<_> =
                        entry.extents.iter().map(|extent| extent.file_offset + extent.length).collect();
                    assert!(ends.is_sorted() && ends.last().is_none_or(|&end| end <= entry.size));
                }
                Event::Data { bytes, .. } => data += bytes.len() as u64,
                Event::FileEnd => {}
            }
        }
        assert!(rest.is_empty());
    }
    walker.finish().map_err(|error| error.to_string())?;
    assert!(data <= tar.len() as u64);
    Ok((entries, data))
}

/// Writes the stream as a layer, which must not panic and must leave nothing when it is refused.
fn store(tar: &[u8]) -> bool {
    let root = tempfile::tempdir().unwrap();
    let store = ErofsLayers::open(root.path()).unwrap();
    let id = coracle_image_store::layer::DiffId::from_bytes(Sha256::digest(tar).into());
    let mut writer = store.begin(id).unwrap();
    let result = writer.write(tar).and_then(|()| writer.finish());
    if let Err(error) = &result {
        let _ = (error.to_string(), error.kind());
        assert_eq!(store.usage().unwrap().inodes, 3);
    }
    result.is_ok()
}

#[test]
fn mutated_archives() {
    let mut random = Random::new(42);
    let mut accepted = 0;
    for seed in 0..400 {
        let mut tar = generate::image(seed).remove(0);
        for _ in 0..1 + random.below(4) {
            mutate(&mut tar, &mut random);
        }
        let whole = walk(&tar, tar.len().max(1));
        assert_eq!(whole, walk(&tar, 1 + random.below(2000) as usize), "seed {seed}");
        accepted += usize::from(store(&tar));
    }
    // Some changes hit data only: the test would show nothing if all were refused at the first header.
    assert!(accepted > 20, "{accepted}");
}

fn mutate(tar: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(tar.len() as u64) as usize;
    match random.below(6) {
        0 => tar[at] ^= 1 << random.below(8),
        1 => tar.truncate(at.max(1)),
        2 => {
            let block = at / 512 * 512;
            let copy: Vec<u8> = tar[block..(block + 512).min(tar.len())].to_vec();
            tar.splice(block..block, copy);
        }
        3 => drop(tar.drain(at / 512 * 512..(at / 512 * 512 + 512).min(tar.len()))),
        // A header's field with its checksum made good again.
        _ => {
            let block = at / 512 * 512;
            if block + 512 <= tar.len() && &tar[block + 257..block + 262] == b"ustar" {
                let field = [0, 99, 100, 108, 124, 125, 135, 136, 156, 157, 257, 263, 329, 345, 482, 500];
                let position = block + field[random.below(field.len() as u64) as usize];
                tar[position] =
                    [0, b' ', b'7', b'9', 0x80, 0xff, b'x', b'S', b'L', b'g'][random.below(10) as usize];
                fix_checksum(&mut tar[block..block + 512]);
            }
        }
    }
}

fn fix_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A header with this type, claimed size and name.
fn header(kind: u8, size: &[u8], name: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    fix_checksum(&mut block);
    block
}

#[test]
fn claims_are_not_believed() {
    let huge = b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff";
    for kind in [b'0', b'x', b'g', b'L', b'K', b'S', b'V', b'1', b'5'] {
        let mut tar = header(kind, huge, b"a");
        tar.resize(4096, b'1');
        assert!(walk(&tar, 100).is_err(), "{}", char::from(kind));
    }
    // A megabyte and a byte of extended header.
    assert!(walk(&header(b'x', b"00004000001\0", b"a"), 512).unwrap_err().contains("extended header"));
}

#[test]
fn sparse_maps_are_bounded() {
    let map =
        |count: u64| format!("{count}\n{}", (0..count).map(|nth| format!("{nth}\n1\n")).collect::<String>());
    for (map, is_accepted) in [
        (map(3), true),
        ("99999999999999999999999\n".into(), false),
        ("70000\n".into(), false),
        ("2\n5\n1\n4\n1\n".into(), false),
        ("1\n0\n999\n".into(), false),
        ("x".into(), false),
    ] {
        let mut data = map.into_bytes();
        data.resize(data.len().next_multiple_of(512), 0);
        data.extend_from_slice(b"abc");
        let mut member = archive::Member::file("x", &data);
        let keys = [("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "100"), ("GNU.sparse.name", "x")];
        member.pax = keys.map(|(key, value)| (key.into(), value.into())).to_vec();
        let mut archive = archive::Archive::new();
        archive.add(&member);
        let tar = archive.into_bytes();
        assert_eq!(walk(&tar, 99).is_ok(), is_accepted, "{:?}", walk(&tar, 99));
        assert_eq!(store(&tar), is_accepted);
    }
}

#[test]
fn a_sparse_file_that_claims_terabytes_is_small_or_refused() {
    let cases = [
        (45, "0,1".to_owned(), true),
        (59, "0,1".into(), false),
        (59, String::new(), true),
        (59, scattered(), false),
    ];
    for (bits, map, is_accepted) in cases {
        let mut member = archive::Member::file("x", &[b'x'; 60_000]);
        let size = (1_u64 << bits).to_string();
        member.pax =
            vec![(b"GNU.sparse.size".to_vec(), size.into()), (b"GNU.sparse.map".to_vec(), map.into())];
        let mut archive = archive::Archive::new();
        archive.add(&member);
        assert_eq!(store(&archive.into_bytes()), is_accepted);
    }
}

fn scattered() -> String {
    (0..60_000_u64).map(|nth| format!("{},1", nth << 35)).collect::<Vec<_>>().join(",")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise(bytes in proptest::collection::vec(any::<u8>(), 0..5000), piece in 1_usize..1000) {
        let _ = walk(&bytes, piece);
    }

    #[test]
    fn noise_in_extended_headers(text in proptest::collection::vec(any::<u8>(), 0..600), kind in 0_usize..4) {
        let size = format!("{:011o}\0", text.len());
        let mut tar = header(b"xgLK"[kind], size.as_bytes(), b"a");
        tar.extend_from_slice(&text);
        tar.resize(tar.len().next_multiple_of(512), 0);
        tar.extend_from_slice(&header(b'0', b"00000000003\0", b"b"));
        tar.extend_from_slice(b"abc");
        let _ = walk(&tar, 77);
        store(&tar);
    }
}
