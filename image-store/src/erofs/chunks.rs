//! Chunk lists of sparse files.
//!
//! A chunk is a hole, or a run of blocks in the tar, or, where the tar holds its bytes unaligned or it is a hole in part,
//! a copy in the index. The chunk size is the one with the least to store: small chunks make long lists, large ones more
//! copies.

use super::{BLOCK, BLOCK_BITS};
use crate::tar::Extent;

/// Bytes that the chunk list and the copies of one file may take. A map of a few kilobytes can claim terabytes.
pub const MOST_BYTES: u64 = 256 << 20;
/// The largest chunk is 512 << 31 bytes.
const MOST_BITS: u32 = 31;

/// Where the bytes of a chunk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// All zeros.
    Hole,
    /// In the tar, at this offset, a multiple of the block size.
    Tar(u64),
    /// Put together in the index.
    Copy,
}

/// How a sparse file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Chunk size is the block size shifted by this.
    pub bits: u32,
    /// Number of chunks.
    pub count: u64,
    /// How many of them are copies.
    pub copies: u64,
}

impl Plan {
    /// Bytes of a chunk.
    pub fn chunk_size(&self) -> u64 {
        BLOCK << self.bits
    }

    /// Bytes that it takes in the index.
    pub fn cost(&self) -> u64 {
        self.count.saturating_mul(8).saturating_add(self.copies.saturating_mul(self.chunk_size()))
    }
}

/// The cheapest plan; `None` when even that exceeds [`MOST_BYTES`].
pub fn plan(size: u64, extents: &[Extent]) -> Option<Plan> {
    let all_bits = 0..=MOST_BITS;
    let plan_with = |bits| {
        let chunk_size = BLOCK << bits;
        let copies =
            runs(size, extents, chunk_size).filter(|run| run.chunk == Chunk::Copy).map(|run| run.count).sum();
        Plan { bits, count: size.div_ceil(chunk_size), copies }
    };
    all_bits.map(plan_with).min_by_key(Plan::cost).filter(|plan| plan.cost() <= MOST_BYTES)
}

/// Every chunk in order.
pub fn list<'a>(size: u64, extents: &'a [Extent], plan: &Plan) -> impl Iterator<Item = Chunk> + use<'a> {
    let chunk_size = plan.chunk_size();
    runs(size, extents, chunk_size).flat_map(move |run| {
        (0..run.count).map(move |nth| match run.chunk {
            Chunk::Tar(offset) => Chunk::Tar(offset + nth * chunk_size),
            other => other,
        })
    })
}

/// Equal chunks in a row: holes, copies, or consecutive pieces of the tar.
#[derive(Debug, Clone, Copy)]
struct Run {
    chunk: Chunk,
    count: u64,
}

/// Cuts a file into runs, in time that depends on the number of extents only.
fn runs(size: u64, extents: &[Extent], chunk_size: u64) -> impl Iterator<Item = Run> {
    let total = size.div_ceil(chunk_size);
    let (mut at, mut next) = (0_u64, 0_usize);
    std::iter::from_fn(move || {
        if at >= total {
            return None;
        }
        let begin = at * chunk_size;
        while extents.get(next).is_some_and(|extent| extent.file_offset + extent.length <= begin) {
            next += 1;
        }
        let run = match extents.get(next) {
            None => Run { chunk: Chunk::Hole, count: total - at },
            Some(extent) if extent.file_offset / chunk_size > at => {
                Run { chunk: Chunk::Hole, count: extent.file_offset / chunk_size - at }
            }
            Some(extent) => covered(extent, begin, size, chunk_size),
        };
        at += run.count;
        Some(run)
    })
}

/// The run that begins with a chunk that `extent` touches.
fn covered(extent: &Extent, begin: u64, size: u64, chunk_size: u64) -> Run {
    let copy = Run { chunk: Chunk::Copy, count: 1 };
    if extent.file_offset > begin {
        return copy;
    }
    let into = begin - extent.file_offset;
    let end = extent.file_offset + extent.length;
    // The last chunk may be shorter than the others.
    let whole = if end == size { (end - begin).div_ceil(chunk_size) } else { (end - begin) / chunk_size };
    let aligned = (extent.tar_offset + into).is_multiple_of(BLOCK);
    match (whole, aligned) {
        (0, _) => copy,
        (count, true) => Run { chunk: Chunk::Tar(extent.tar_offset + into), count },
        (count, false) => Run { chunk: Chunk::Copy, count },
    }
}

/// The chunk format field of the inode.
pub fn format(plan: &Plan) -> u32 {
    const INDEXES: u32 = 0x20;
    debug_assert!(plan.bits <= MOST_BITS && BLOCK_BITS == 9);
    plan.bits | INDEXES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(file_offset: u64, length: u64, tar_offset: u64) -> Extent {
        Extent { file_offset, length, tar_offset }
    }

    fn chunks(size: u64, extents: &[Extent], bits: u32) -> Vec<Chunk> {
        list(size, extents, &Plan { bits, count: 0, copies: 0 }).collect()
    }

    #[test]
    fn chunks_are_holes_pieces_or_copies() {
        use Chunk::{Copy, Hole, Tar};
        assert_eq!(chunks(2048, &[extent(512, 1024, 5120)], 0), [Hole, Tar(5120), Tar(5632), Hole]);
        assert_eq!(chunks(2048, &[extent(512, 1024, 5120)], 1), [Copy, Copy]);
        assert_eq!(chunks(1300, &[extent(1024, 276, 512)], 0), [Hole, Hole, Tar(512)]);
        assert_eq!(chunks(1300, &[extent(1024, 200, 512)], 0), [Hole, Hole, Copy]);
        assert_eq!(chunks(1536, &[extent(0, 100, 512), extent(512, 1024, 612)], 0), [Copy, Copy, Copy]);
        assert_eq!(chunks(512, &[extent(0, 10, 0), extent(20, 10, 10)], 0), [Copy]);
        assert_eq!(chunks(0, &[], 0), []);
    }

    #[test]
    fn huge_holes_are_cheap_and_bombs_refused() {
        let plan_of = |size, extents: &[Extent]| plan(size, extents);
        assert_eq!(plan_of(1 << 50, &[]).map(|plan| plan.copies), Some(0));
        let plan = plan_of(1 << 40, &[extent(1 << 39, 4096, 512)]);
        assert!(plan.is_some_and(|plan| plan.cost() < 8 << 20), "{plan:?}");
        let scattered: Vec<_> = (0..60_000).map(|i| extent(i << 30, 4096, 512 + i * 4096)).collect();
        assert_eq!(plan_of(60_000 << 30, &scattered), None);
    }
}
