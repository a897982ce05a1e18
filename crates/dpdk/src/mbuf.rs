//! One packet of DPDK's, and its only owner.

use std::fmt;
use std::mem::size_of;
use std::ptr::NonNull;

use arrayvec::ArrayVec;
use vipa_dpdk_sys as sys;
use vipa_packet::PacketBuf;

/// A packet: one segment, and nobody else's. Dropping it gives it back to its pool.
///
/// The pool outlives it: a pool is only freed when all its packets are back.
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// A vector of Mbufs is handed to DPDK as an array of pointers.
const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());

// SAFETY: nobody else has the mbuf, and a pool takes its packets back from every thread.
unsafe impl Send for Mbuf {}

/// Gives packets back to their pools, all in one call.
pub fn free_all<const N: usize>(packets: &mut ArrayVec<Mbuf, N>) {
    let count = packets.len();
    // SAFETY: zero is within the capacity, and the packets, no longer the vector's, are freed just below.
    unsafe { packets.set_len(0) };
    // SAFETY: the first `count` elements are mbufs that this function now owns alone; each is freed once.
    unsafe { sys::rte_pktmbuf_free_bulk(packets.as_mut_ptr().cast(), count as u32) }
}

impl Mbuf {
    /// Whether the port has found the checksum of the IPv4 header right: of the innermost one, where it looks into tunnels.
    #[inline]
    pub(crate) fn has_good_header_sum(&self) -> bool {
        self.head().ol_flags & u64::from(sys::VIPA_HEADER_SUM) == u64::from(sys::VIPA_HEADER_SUM_GOOD)
    }

    /// Replaces the frame; the caller has checked that it fits behind the headroom of an empty packet.
    pub(crate) fn write(&mut self, frame: &[u8]) {
        let room = usize::from(self.head().buf_len - self.head().data_off);
        assert!(frame.len() <= room, "a frame of {} bytes for {room}", frame.len());
        self.set_length(frame.len() as u16);
        self.bytes_mut().copy_from_slice(frame);
    }

    #[inline]
    fn head(&self) -> &sys::rte_mbuf {
        // SAFETY: the mbuf is alive and only ours while `self` exists.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn head_mut(&mut self) -> &mut sys::rte_mbuf {
        // SAFETY: as in head(), and `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    /// Where the frame begins.
    #[inline]
    fn start(&self) -> *mut u8 {
        let head = self.head();
        // SAFETY: DPDK keeps data_off within the buffer, and so does every method here.
        unsafe { head.buf_addr.cast::<u8>().add(usize::from(head.data_off)) }
    }

    #[inline]
    fn set_length(&mut self, length: u16) {
        let head = self.head_mut();
        head.data_len = length;
        head.pkt_len = u32::from(length);
    }
}

impl PacketBuf for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: one segment (rx_burst sees to it) has data_len initialised bytes at its start; nobody else has it.
        unsafe { std::slice::from_raw_parts(self.start(), usize::from(self.head().data_len)) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in bytes(), and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start(), usize::from(self.head().data_len)) }
    }

    #[inline]
    fn headroom(&self) -> usize {
        usize::from(self.head().data_off)
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let grown = u16::try_from(n).ok()?;
        let head = self.head();
        let (start, length) = (head.data_off.checked_sub(grown)?, head.data_len.checked_add(grown)?);
        self.head_mut().data_off = start;
        self.set_length(length);
        self.bytes_mut().get_mut(..n)
    }

    #[inline]
    fn trim_front(&mut self, n: usize) -> bool {
        let head = self.head();
        let fits = n <= usize::from(head.data_len);
        if fits {
            let (start, length) = (head.data_off + n as u16, head.data_len - n as u16);
            self.head_mut().data_off = start;
            self.set_length(length);
        }
        fits
    }

    #[inline]
    fn truncate(&mut self, len: usize) -> bool {
        let fits = len <= usize::from(self.head().data_len);
        if fits {
            self.set_length(len as u16);
        }
        fits
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the mbuf is ours alone, and this is the end of it.
        unsafe { sys::vipa_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mbuf({} bytes)", self.bytes().len())
    }
}
