//! A fixed number of packet buffers, made once.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;
use vipa_dpdk_sys as sys;
use vipa_packet::PacketBuf;

use crate::error::last_reason;
use crate::{Burst, Eal, Error, Mbuf};

/// Bytes before a received frame into which it can grow.
pub const HEADROOM: u16 = sys::VIPA_HEADROOM as u16;

/// Bytes for a frame unless told otherwise; drivers like a multiple of 1,024.
const FRAME_ROOM: u16 = 2048;

/// Bytes of a frame beside its IP packet: Ethernet header, one VLAN tag, and the check sequence some drivers leave.
pub(crate) const FRAME_OVERHEAD: u16 = 14 + 4 + 4;

/// How many buffers, and which.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Unique in the process, at most 25 bytes.
    pub name: String,
    /// Packets. 2^n - 1 uses memory best.
    pub count: u32,
    /// Free packets each of DPDK's threads may keep for itself; at most 512 and two thirds of `count`.
    pub cache: u32,
    /// Bytes for a frame, beside [`HEADROOM`].
    pub frame_room: u16,
    /// NUMA node; `None` for any.
    pub socket: Option<u16>,
}

/// Packet buffers. Clones are the same pool.
///
/// A pool whose packets are not all back when its last user goes is left in place for the rest of the process, with all
/// of DPDK: so a packet may outlive everything.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    pool: NonNull<sys::rte_mempool>,
    count: u32,
    frame_room: u16,
    eal: Eal,
}

// SAFETY: a mempool may be used from every thread (its ring is multi-producer and multi-consumer, its caches are per
// thread); it is freed once, by the last owner.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl PoolOptions {
    #[must_use]
    pub fn new(name: &str, count: u32) -> Self {
        let cache = (sys::VIPA_MAX_CACHE / 2).min(count / 2);
        Self { name: name.to_owned(), count, cache, frame_room: FRAME_ROOM, socket: None }
    }

    /// With buffers for the frames of IP packets of `mtu` bytes, where the ordinary ones are too small.
    #[must_use]
    pub fn for_mtu(mut self, mtu: u16) -> Self {
        let needed = mtu.saturating_add(FRAME_OVERHEAD).checked_next_multiple_of(1024);
        self.frame_room = self.frame_room.max(needed.unwrap_or(u16::MAX - HEADROOM));
        self
    }
}

impl Pool {
    pub fn new(eal: &Eal, options: &PoolOptions) -> Result<Self, Error> {
        let PoolOptions { name, count, cache, frame_room, socket } = options;
        let refused = |reason: &str| Error::Pool { name: name.clone(), reason: reason.to_owned() };
        let name = CString::new(name.as_str()).map_err(|_| refused("its name holds a NUL character"))?;
        let room = frame_room.checked_add(HEADROOM).ok_or_else(|| refused("its buffers are too large"))?;
        let socket = socket.map_or(-1, i32::from);
        // SAFETY: DPDK runs (`eal`); `name` is terminated and copied by the callee.
        let pool = unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), *count, *cache, 0, room, socket) };
        match NonNull::new(pool) {
            Some(pool) => Ok(Self(Arc::new(Owned { pool, count: *count, frame_room: *frame_room, eal: eal.clone() }))),
            // SAFETY: reads a variable of this thread.
            None => match unsafe { sys::vipa_errno() } {
                NO_MEMORY => Err(Error::PoolMemory { count: *count, room, reason: last_reason() }),
                _ => Err(refused(&last_reason())),
            },
        }
    }

    /// Packets that are free now. Not for the packet path: it visits the cache of every thread.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.0.available()
    }

    /// Packets in all.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.count
    }

    /// Bytes of the longest frame.
    #[must_use]
    pub fn frame_room(&self) -> u16 {
        self.0.frame_room
    }

    /// A packet with these bytes; `None` when the pool is empty or the frame too long.
    #[must_use]
    pub fn compose(&self, frame: &[u8]) -> Option<Mbuf> {
        let mut one = ArrayVec::<Mbuf, 1>::new();
        if frame.len() > usize::from(self.0.frame_room) || !self.fill(&mut one) {
            return None;
        }
        let mut packet = one.pop()?;
        packet.write(frame);
        Some(packet)
    }

    /// Fills `burst` up with empty packets; false, and nothing changed, when the pool has not as many.
    #[must_use]
    pub fn allocate(&self, burst: &mut Burst) -> bool {
        self.fill(burst)
    }

    fn fill<const N: usize>(&self, packets: &mut ArrayVec<Mbuf, N>) -> bool {
        let (length, missing) = (packets.len(), packets.remaining_capacity());
        // SAFETY: `length` is within the vector's capacity.
        let place = unsafe { packets.as_mut_ptr().add(length) };
        let pool = self.0.pool.as_ptr();
        // SAFETY: the pool is alive; `place` has room for `missing` packets, and Mbuf is a pointer to an mbuf.
        if unsafe { sys::vipa_alloc_bulk(pool, place.cast(), missing as u32) } != 0 {
            return false;
        }
        // SAFETY: all up to the capacity are initialised now, each owned by nobody else.
        unsafe { packets.set_len(length + missing) };
        debug_assert!(packets[length..].iter().all(|packet| packet.bytes().is_empty()));
        true
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.0.pool.as_ptr()
    }
}

/// ENOMEM, the same number on every Linux.
const NO_MEMORY: i32 = 12;

impl Owned {
    fn available(&self) -> u32 {
        // SAFETY: the pool is alive; counting only reads.
        unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.available() != self.count {
            std::mem::forget(self.eal.clone());
            return;
        }
        // SAFETY: this was the last owner and every packet is back: nobody can reach the pool any more.
        unsafe { sys::rte_mempool_free(self.pool.as_ptr()) }
    }
}
