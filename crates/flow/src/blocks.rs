//! Blocks: stretches of the table that no entry leaves.
//!
//! The two buckets of a connection are in one block, so an entry that moves stays in its block. A walk finishes one block
//! after the other and needs to remember no more than the names of one block to name nothing twice.
//!
//! ```text
//!   bucket  0 … 4,095 │ 4,096 … 8,191 │ 8,192 … 13,999
//!   block       0     │       1       │       2 (the last, with the rest)
//! ```

use std::ops::Range;

/// Buckets of a block, but the last: 256 kB of IPv4 entries, which stay in the processor's cache between the two passes of a
/// walk. A block three quarters full of 16,384 entries holds one percent more than its share in one case of seven, so next to
/// none fills up before the whole table does.
pub(crate) const BLOCK: usize = 4096;

/// How a table is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The first bucket of the last block.
    last: usize,
    /// Buckets of the last block: at most two blocks' less one.
    last_len: usize,
}

impl Blocks {
    /// Of a table of so many buckets.
    pub(crate) const fn of(buckets: usize) -> Self {
        let whole = buckets / BLOCK;
        let last = if whole == 0 { 0 } else { (whole - 1) * BLOCK };
        Self { last, last_len: buckets - last }
    }

    pub(crate) fn count(&self) -> usize {
        self.last / BLOCK + 1
    }

    /// The buckets of a block.
    pub(crate) fn range(&self, block: usize) -> Range<usize> {
        let start = block * BLOCK;
        start..start + self.len_from(start)
    }

    /// The bucket that lies `fraction` / 2³² of the way through the block of `home`; its neighbour, if that is `home`.
    #[inline(always)]
    pub(crate) fn other(&self, home: usize, fraction: u32) -> usize {
        let start = (home - home % BLOCK).min(self.last);
        let other = start + ((u64::from(fraction) * self.len_from(start) as u64) >> 32) as usize;
        match (other == home, home == start) {
            (false, _) => other,
            (true, true) => home + 1,
            (true, false) => home - 1,
        }
    }

    #[inline(always)]
    fn len_from(&self, start: usize) -> usize {
        if start == self.last { self.last_len } else { BLOCK }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_table_and_both_buckets_of_a_key_are_different_ones_of_one_block() {
        for buckets in [2, 3, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 5 * BLOCK + 77] {
            let blocks = Blocks::of(buckets);
            let mut covered = 0;
            for block in 0..blocks.count() {
                let range = blocks.range(block);
                assert_eq!(range.start, covered);
                covered = range.end;
                for home in [range.start, range.start + 1, (range.start + range.end) / 2, range.end - 1] {
                    for fraction in (0..=u32::MAX).step_by(1 << 18).chain([u32::MAX]) {
                        let other = blocks.other(home, fraction);
                        assert!(range.contains(&other) && other != home, "{home} {fraction} of {buckets}: {other}");
                    }
                }
            }
            assert_eq!(covered, buckets);
        }
    }
}
