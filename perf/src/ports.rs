//! DPDK's ports as a measured worker has them, and generators behind the receiving ones.
//!
//! A `net_pcap` port replays few packets for ever and costs no other core. For many connections its packets get another
//! client's address and port each, drawn here: that costs a little, and is measured alone (`Task::Bare`).

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use vipa_dataplane::{BURST, Rx, Tx};
use vipa_dpdk::{Mbuf, RxQueue, TxQueue};
use vipa_packet::PacketBuf;

use crate::world::{SOURCE_ADDRESS, SOURCE_PORT, client};

/// Whose packets come.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Draw {
    /// As the port has them.
    Replayed,
    /// Each of a client drawn among the first `clients`.
    Drawn { clients: u64 },
    /// Each of a client that was not seen before, from this one on.
    New { from: u64 },
}

/// A receive queue, and whose packets it gives.
pub(crate) struct Receive {
    queue: RxQueue,
    draw: Draw,
    random: u64,
}

impl Receive {
    pub(crate) fn new(queue: RxQueue, draw: Draw) -> Self {
        let random = 0x9e37_79b9_7f4a_7c15 ^ std::ptr::from_ref(&queue) as u64;
        Self { queue, draw, random }
    }

    pub(crate) fn draw(&mut self, draw: Draw) {
        self.draw = draw;
    }
}

impl Rx for Receive {
    type Buf = Mbuf;

    #[inline]
    fn burst(&mut self, packets: &mut ArrayVec<Mbuf, BURST>) {
        self.queue.burst(packets);
        match &mut self.draw {
            Draw::Replayed => {}
            Draw::Drawn { clients } => {
                for packet in packets {
                    set_client(packet, below(&mut self.random, *clients));
                }
            }
            Draw::New { from } => {
                for packet in packets {
                    set_client(packet, *from);
                    *from += 1;
                }
            }
        }
    }
}

/// A transmit queue.
pub(crate) struct Transmit(pub(crate) TxQueue);

impl Tx for Transmit {
    type Buf = Mbuf;

    #[inline]
    fn burst(&mut self, packets: &mut ArrayVec<Mbuf, BURST>) {
        self.0.burst(packets);
    }

    fn compose(&mut self, frame: &[u8]) -> bool {
        self.0.compose(frame)
    }
}

/// Makes it the `n`-th client's packet. The IP header's checksum stays right ([`client`]); TCP's does not, and is nobody's
/// business on the way.
#[inline]
pub(crate) fn set_client(packet: &mut Mbuf, n: u64) {
    let (address, port) = client(n);
    let bytes = packet.bytes_mut();
    bytes[SOURCE_ADDRESS..SOURCE_ADDRESS + 4].copy_from_slice(&address.to_be_bytes());
    bytes[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
}

/// A number below `limit`, evenly enough: the high half of a congruential generator (Knuth's MMIX), as a fraction.
#[inline]
pub(crate) fn below(random: &mut u64, limit: u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*random >> 32) * limit) >> 32
}
