//! Map from an address to an index of a list, by open addressing: at most half full, so that a lookup is nearly always
//! one step. The addresses are from the configuration, not from the network, so the hash needs no secret.

use std::fmt;

/// An address in numeric order: `u32` of IPv4, `u128` of IPv6.
pub(super) trait Address: Copy + Eq + Default {
    /// Fibonacci hashing: the top bits of the product depend on all bits of the address.
    fn spread(self) -> u32;
}

impl Address for u32 {
    #[inline]
    fn spread(self) -> u32 {
        self.wrapping_mul(0x9e37_79b9)
    }
}

impl Address for u128 {
    #[inline]
    fn spread(self) -> u32 {
        let folded = (self >> 64) as u64 ^ (self as u64).rotate_left(32);
        (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }
}

pub(super) struct Index<A> {
    slots: Box<[Slot<A>]>,
    shift: u32,
}

#[derive(Clone, Copy)]
struct Slot<A> {
    address: A,
    id: u16,
}

/// A free slot; no list is that long.
const FREE: u16 = u16::MAX;

impl<A: Address> Index<A> {
    /// Of several ids with one address, lookups find the first one.
    ///
    /// # Panics
    /// With more entries than an id can name.
    pub(super) fn build(entries: &[(A, u16)]) -> Self {
        assert!(entries.len() < usize::from(FREE), "{} addresses are more than an id can name", entries.len());
        let size = (entries.len() * 2).next_power_of_two().max(2);
        let free = Slot { address: A::default(), id: FREE };
        let mut index = Self { slots: vec![free; size].into(), shift: u32::BITS - size.trailing_zeros() };
        for &(address, id) in entries {
            let mut place = index.start(address);
            while index.slots[place].id != FREE && index.slots[place].address != address {
                place = (place + 1) % size;
            }
            if index.slots[place].id == FREE {
                index.slots[place] = Slot { address, id };
            }
        }
        index
    }

    #[inline(always)]
    pub(super) fn find(&self, address: A) -> Option<u16> {
        let start = self.start(address);
        let slot = self.slots[start];
        if slot.id == FREE {
            return None;
        }
        if slot.address == address { Some(slot.id) } else { self.find_after(start, address) }
    }

    #[inline(never)]
    fn find_after(&self, start: usize, address: A) -> Option<u16> {
        let mut place = (start + 1) & (self.slots.len() - 1);
        loop {
            let slot = self.slots[place];
            if slot.id == FREE {
                return None;
            }
            if slot.address == address {
                return Some(slot.id);
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn start(&self, address: A) -> usize {
        (address.spread() >> self.shift) as usize
    }
}

impl<A> fmt::Debug for Index<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}
