//! What a worker asks of a port's queues.

use arrayvec::ArrayVec;
use vipa_packet::{HeaderSums, PacketBuf};

/// Packets received or sent in one go.
pub const BURST: usize = 32;

/// One receive queue, this worker's alone.
pub trait Rx {
    type Buf: PacketBuf;

    /// Appends what has arrived, as far as there is room.
    fn burst(&mut self, packets: &mut ArrayVec<Self::Buf, BURST>);

    /// What the port knows of the IPv4 headers of these packets, which it gave last.
    fn header_sums(&self, _packets: &[Self::Buf]) -> HeaderSums {
        HeaderSums::Unverified
    }
}

/// One transmit queue, this worker's alone.
pub trait Tx {
    type Buf: PacketBuf;

    /// Takes packets from the front. What the port refuses is left, in its order, and is still the caller's.
    fn burst(&mut self, packets: &mut ArrayVec<Self::Buf, BURST>);

    /// A new packet with these bytes, to be sent; `None` when there is no buffer.
    fn make(&mut self, _frame: &[u8]) -> Option<Self::Buf> {
        None
    }

    /// Sends a copy of `frame` at once; false when there was no buffer or the port refused it.
    fn compose(&mut self, frame: &[u8]) -> bool;
}
