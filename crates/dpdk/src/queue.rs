//! The ends of a port: each belongs to one worker.

use std::cell::Cell;
use std::marker::PhantomData;

use vipa_dpdk_sys as sys;
use vipa_packet::HeaderSums;

use crate::{Burst, EthPort, Mbuf};

/// Receives. One of its kind: neither copied nor shared, so a burst needs no lock.
#[derive(Debug)]
pub struct RxQueue {
    port: EthPort,
    queue: u16,
    unreadable: u64,
    _not_shared: PhantomData<Cell<()>>,
}

/// Sends. One of its kind: neither copied nor shared, so a burst needs no lock.
#[derive(Debug)]
pub struct TxQueue {
    port: EthPort,
    queue: u16,
    _not_shared: PhantomData<Cell<()>>,
}

impl RxQueue {
    pub(crate) fn new(port: EthPort, queue: u16) -> Self {
        Self { port, queue, unreadable: 0, _not_shared: PhantomData }
    }

    /// Fills `burst` up with what has arrived; returns how many came.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        let (length, room) = (burst.len(), burst.remaining_capacity());
        // SAFETY: `length` is within the vector's capacity.
        let place = unsafe { burst.as_mut_ptr().add(length) };
        let (port, queue) = (self.port.id(), self.queue);
        // SAFETY: the port is open and started, the queue ours alone; `place` has room for `room` packets, and Mbuf is
        // a pointer to an mbuf.
        let received = unsafe { sys::vipa_rx_burst(port, queue, place.cast(), room as u16, &raw mut self.unreadable) };
        // SAFETY: as many more are initialised, each one segment that is nobody else's.
        unsafe { burst.set_len(length + usize::from(received)) };
        usize::from(received)
    }

    /// What the port has said of these packets, which it gave last. Of one that is IPv6 or wrong it says nothing good.
    #[inline]
    #[must_use]
    pub fn header_sums(&self, packets: &[Mbuf]) -> HeaderSums {
        if self.port.verifies_header_sums() && packets.iter().all(Mbuf::has_good_header_sum) {
            HeaderSums::Verified
        } else {
            HeaderSums::Unverified
        }
    }

    /// Packets freed at once because their parts did not fit into one buffer.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    #[must_use]
    pub fn port(&self) -> &EthPort {
        &self.port
    }
}

impl TxQueue {
    pub(crate) fn new(port: EthPort, queue: u16) -> Self {
        Self { port, queue, _not_shared: PhantomData }
    }

    /// Offers `burst` to the driver; returns how many it took. What it refused stays, in order, at the front.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        let count = burst.len();
        let (port, queue, first) = (self.port.id(), self.queue, burst.as_mut_ptr());
        // SAFETY: the port is open and started, the queue ours alone; the vector holds `count` mbufs, which are ours.
        let taken = unsafe { sys::vipa_tx_burst(port, queue, first.cast(), count as u16) };
        let taken = usize::from(taken).min(count);
        // The driver owns the first `taken` now: they leave the vector without being dropped.
        let refused = count - taken;
        // SAFETY: zero is within the capacity; what was in the vector is accounted for here.
        unsafe { burst.set_len(0) };
        if refused > 0 {
            // SAFETY: `taken` is below `count`, the number of elements.
            let rest = unsafe { first.add(taken) };
            // SAFETY: `refused` initialised elements are read and written within the vector; the areas may overlap.
            unsafe { std::ptr::copy(rest, first, refused) };
            // SAFETY: exactly the refused ones, still ours, are at the front.
            unsafe { burst.set_len(refused) };
        }
        taken
    }

    /// Makes a packet of these bytes and sends it; false when the pool is empty, the frame too long, the driver full or
    /// the link down. Some drivers keep packets until the link is back, and an announcement must not go out late.
    pub fn compose(&mut self, frame: &[u8]) -> bool {
        if self.port.link().is_some_and(|link| !link.up) {
            return false;
        }
        let Some(packet) = self.port.pool().compose(frame) else { return false };
        let mut burst = Burst::new();
        burst.push(packet);
        self.burst(&mut burst) == 1
    }

    #[must_use]
    pub fn port(&self) -> &EthPort {
        &self.port
    }
}

const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<RxQueue>();
    is_send::<TxQueue>();
    is_send::<Mbuf>();
};
