//! Interface of a port's queues to the worker.

use arrayvec::ArrayVec;
use vipa_packet::{HeaderSums, PacketBuf};

/// Packets received or sent in one call.
pub const BURST: usize = 32;

/// A receive queue, used by this worker alone.
pub trait Rx {
    type Buf: PacketBuf;

    /// Appends the packets that have arrived, as far as there is room.
    fn burst(&mut self, packets: &mut ArrayVec<Self::Buf, BURST>);

    /// What the port states about the IPv4 header checksums of these packets, which it delivered last.
    fn header_sums(&self, _packets: &[Self::Buf]) -> HeaderSums {
        HeaderSums::Unverified
    }
}

/// A transmit queue, used by this worker alone.
pub trait Tx {
    type Buf: PacketBuf;

    /// Takes packets from the front. Packets that the port refuses are left, in their order, and still belong to the
    /// caller.
    fn burst(&mut self, packets: &mut ArrayVec<Self::Buf, BURST>);

    /// A new packet with these bytes, to be sent; `None` when there is no buffer.
    fn make(&mut self, _frame: &[u8]) -> Option<Self::Buf> {
        None
    }

    /// Sends a copy of `frame` at once; false when there was no buffer or the port refused it.
    fn compose(&mut self, frame: &[u8]) -> bool;
}
