//! A burst's packets side by side: what is known of each so far.

use arrayvec::ArrayVec;
use vipa_flow::{Key4, Key6, PackedKey, Sought};
use vipa_handoff::{AnyKey, Fate, Flows, LocalReply, Reason};
use vipa_model::{PortId, TargetId, VipaId};
use vipa_packet::TcpFlags;

use crate::{BURST, family::Family, fragments::FragmentKey};

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Forward(TargetId),
    /// Back to the client, as from this VIPA and port.
    Return(VipaId, u16),
    Answer(LocalReply),
    /// To the kernel interface `PortId`.
    ToKernel(PortId),
    /// From the kernel, out of this port.
    FromKernel(PortId),
    /// Wait with it: its connection may become known.
    Hold,
    /// Wait with it: the packet's first part may come.
    HoldFragment,
    /// Nothing more; this is its fate.
    Done(Fate),
}

impl Verdict {
    pub(crate) const fn drop(reason: Reason) -> Self {
        Self::Done(Fate::Drop(reason))
    }
}

/// What a connection's packet means to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Segment(TcpFlags),
    Datagram,
    /// An ICMP error about it, which must reach the target that sends too much or in vain.
    Error,
    /// From this target, on its way back to the client: a segment's flags, or none of a datagram or an ICMP error.
    Return(TargetId, Option<TcpFlags>),
}

impl Kind {
    /// A segment that neither opens nor closes.
    #[inline(always)]
    pub(crate) fn goes_on(self) -> bool {
        matches!(self, Self::Segment(flags) if flags.goes_on())
    }
}

/// A packet whose connection is being looked up.
#[derive(Clone, Copy)]
pub(crate) struct Asked<K: Family> {
    pub(crate) key: PackedKey<K>,
    pub(crate) sought: Sought,
    pub(crate) kind: Kind,
    /// Its place in the burst.
    pub(crate) packet: u8,
}

/// The packets of one family that have a connection, in their order.
pub(crate) struct Lane<K: Family> {
    pub(crate) asked: ArrayVec<Asked<K>, BURST>,
}

/// A first part of a packet, which will teach where the others go.
#[derive(Clone, Copy)]
pub(crate) struct First {
    pub(crate) packet: u8,
    pub(crate) key: FragmentKey,
    pub(crate) end: u16,
}

pub(crate) struct Lanes {
    /// By place in the burst.
    pub(crate) verdicts: [Verdict; BURST],
    /// Of the packet that is looked at.
    pub(crate) place: u8,
    pub(crate) ipv4: Lane<Key4>,
    pub(crate) ipv6: Lane<Key6>,
    pub(crate) firsts: ArrayVec<First, BURST>,
    /// How many of this burst's packets may still open a connection.
    pub(crate) openings: u32,
}

impl<K: Family> Lane<K> {
    fn connection_of(&self, packet: usize) -> Option<(AnyKey, Kind)> {
        let place = self.asked.binary_search_by_key(&packet, |asked| usize::from(asked.packet)).ok()?;
        Some((self.asked[place].key.key().any(), self.asked[place].kind))
    }
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            verdicts: [Verdict::drop(Reason::Orphan); BURST],
            place: 0,
            ipv4: Lane { asked: ArrayVec::new() },
            ipv6: Lane { asked: ArrayVec::new() },
            firsts: ArrayVec::new(),
            openings: 0,
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.ipv4.asked.clear();
        self.ipv6.asked.clear();
        self.firsts.clear();
    }

    /// Whether one more may.
    #[inline]
    pub(crate) fn may_open(&mut self) -> bool {
        let may = self.openings > 0;
        self.openings = self.openings.saturating_sub(1);
        may
    }

    /// Whether the burst, which was granted so many openings, has packets beside those that may open a connection.
    #[inline]
    pub(crate) fn have_established(&self, granted: u32) -> bool {
        self.ipv4.asked.len() + self.ipv6.asked.len() > (granted - self.openings) as usize
    }

    /// Whose packet this is, when it is held.
    pub(crate) fn connection_of(&self, packet: usize) -> Option<(AnyKey, Kind)> {
        self.ipv4.connection_of(packet).or_else(|| self.ipv6.connection_of(packet))
    }

    /// The connection will decide; its lookup begins. Until then, and should nobody decide, the packet is an orphan.
    #[inline(always)]
    pub(crate) fn ask<K: Laned>(&mut self, flows: &Flows, key: K, kind: Kind) -> Verdict {
        let (key, packet) = (PackedKey::new(&key), self.place);
        let sought = K::table(flows).seek(&key);
        K::lane(self).asked.push(Asked { key, sought, kind, packet });
        Verdict::drop(Reason::Orphan)
    }

    /// The packet being classified is a first part.
    pub(crate) fn note_first(&mut self, key: FragmentKey, end: u16) {
        self.firsts.push(First { packet: self.place, key, end });
    }
}

/// A key that has a lane of its own.
pub(crate) trait Laned: Family {
    fn lane(lanes: &mut Lanes) -> &mut Lane<Self>;
}

impl Laned for Key4 {
    #[inline(always)]
    fn lane(lanes: &mut Lanes) -> &mut Lane<Self> {
        &mut lanes.ipv4
    }
}

impl Laned for Key6 {
    #[inline(always)]
    fn lane(lanes: &mut Lanes) -> &mut Lane<Self> {
        &mut lanes.ipv6
    }
}
