//! Blocks: ranges of buckets that no entry leaves.
//!
//! Both buckets of a connection are in one block, so an entry that moves stays in its block. A walk finishes one block
//! before it begins the next. To name nothing twice, it remembers only the connections that it has named in the current
//! block.
//!
//! ```text
//!   bucket  0 … 4,095 │ 4,096 … 8,191 │ 8,192 … 13,999
//!   block       0     │       1       │       2 (the last, with the rest)
//! ```

use std::ops::Range;

/// Buckets of every block but the last: 256 kB of IPv4 entries, which stay in the processor's cache between the two
/// passes of a walk. In a table that is three quarters full, a block of 16,384 entries holds one percent more than its
/// share in one case of seven, so hardly any block fills up before the whole table does.
pub(crate) const BLOCK: usize = 4096;

/// Division of a table into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The first bucket of the last block.
    last: usize,
    /// Buckets of the last block: fewer than two blocks.
    last_len: usize,
}

impl Blocks {
    /// Divides a table of `buckets` buckets.
    pub(crate) const fn of(buckets: usize) -> Self {
        let whole = buckets / BLOCK;
        let last = if whole == 0 { 0 } else { (whole - 1) * BLOCK };
        Self { last, last_len: buckets - last }
    }

    pub(crate) fn count(&self) -> usize {
        self.last / BLOCK + 1
    }

    /// Buckets of block number `block`.
    pub(crate) fn range(&self, block: usize) -> Range<usize> {
        let start = block * BLOCK;
        start..start + self.len_from(start)
    }

    /// The bucket at `fraction` / 2³² of the block of `primary`; a neighbour of `primary` where that is `primary`
    /// itself.
    #[inline(always)]
    pub(crate) fn secondary(&self, primary: usize, fraction: u32) -> usize {
        let start = (primary - primary % BLOCK).min(self.last);
        let other = start + ((u64::from(fraction) * self.len_from(start) as u64) >> 32) as usize;
        match (other == primary, primary == start) {
            (false, _) => other,
            (true, true) => primary + 1,
            (true, false) => primary - 1,
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
                for primary in [range.start, range.start + 1, (range.start + range.end) / 2, range.end - 1] {
                    for fraction in (0..=u32::MAX).step_by(1 << 18).chain([u32::MAX]) {
                        let other = blocks.secondary(primary, fraction);
                        assert!(
                            range.contains(&other) && other != primary,
                            "{primary} {fraction} of {buckets}: {other}"
                        );
                    }
                }
            }
            assert_eq!(covered, buckets);
        }
    }
}
