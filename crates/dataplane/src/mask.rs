//! A subset of a burst's packets, by their index.

use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

use crate::BURST;

/// One bit for each index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BurstMask(pub(crate) u32);

const _: () = assert!(BURST == u32::BITS as usize);

impl BurstMask {
    pub(crate) const NONE: Self = Self(0);

    /// The first `count` packets.
    #[inline(always)]
    pub(crate) fn first(count: usize) -> Self {
        Self(if count < BURST { (1 << count) - 1 } else { u32::MAX })
    }

    /// The packets of a whole burst for which `is_so` is true.
    #[inline(always)]
    pub(crate) fn those(is_so: impl Fn(usize) -> bool) -> Self {
        let mut packets = 0;
        for index in 0..BURST {
            packets |= u32::from(is_so(index)) << index;
        }
        Self(packets)
    }

    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(crate) fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Number of packets from index 0 on without a gap.
    #[inline(always)]
    pub(crate) fn leading(self) -> usize {
        self.0.trailing_ones() as usize
    }

    #[inline(always)]
    pub(crate) fn has(self, index: usize) -> bool {
        self.0 >> index & 1 != 0
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, index: usize) {
        self.add_if(index, true);
    }

    #[inline(always)]
    pub(crate) fn add_if(&mut self, index: usize, so: bool) {
        self.0 |= u32::from(so) << index;
    }
}

/// From the lowest index on.
impl Iterator for BurstMask {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let index = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(index)
    }
}

impl BitAnd for BurstMask {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for BurstMask {
    type Output = Self;
    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for BurstMask {
    #[inline(always)]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl Not for BurstMask {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        Self(!self.0)
    }
}
