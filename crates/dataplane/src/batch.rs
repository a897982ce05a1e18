//! A burst's packets side by side: what is known of each so far.

use arrayvec::ArrayVec;
use vipa_flow::{FlowTable, HashedKey, Key4, Key6, PackedKey};
use vipa_handoff::{AnyKey, Fate, Flows, LocalReply, Reason};
use vipa_model::{PortId, TargetId, VipaId};
use vipa_packet::TcpFlags;

use crate::{BURST, family::Family, fragments::FirstPart, mask::BurstMask, path::Prepared};

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Forward(TargetId),
    /// The same for a later part of a packet, which has no ports: its connection's number for outer headers.
    ForwardPart(TargetId, u32),
    /// Back to the client, as from this VIPA and port.
    Return(VipaId, u16),
    Answer(LocalReply),
    /// To the kernel interface `PortId`.
    ToKernel(PortId),
    /// From the kernel, out of this port.
    FromKernel(PortId),
    /// Wait with it: its connection may become known.
    HoldQueue,
    /// Wait with it for a moment: the target that opened the connection may tell of it.
    HoldSynAck,
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

/// The packets of one family that have a connection, by their place in the burst.
pub(crate) struct FamilyBatch<K: Family> {
    pub(crate) keys: [PackedKey<K>; BURST],
    pub(crate) hashed: [HashedKey; BURST],
    kinds: [Kind; BURST],
    /// Which they are, one bit for each.
    pub(crate) asked: BurstMask,
    /// Those among them that are segments which neither open nor close, without options or tags before them: their kind is not
    /// written down.
    pub(crate) going_on: BurstMask,
    /// The same of those on their way back from a target; their kind says from which.
    pub(crate) coming_back: BurstMask,
    /// Those among them whose lookup has not begun.
    pub(crate) unsought: BurstMask,
}

/// A first part of a packet, which will teach where the others go.
#[derive(Clone, Copy)]
pub(crate) struct First {
    pub(crate) packet: u8,
    pub(crate) part: FirstPart,
}

pub(crate) struct Batch {
    /// By place in the burst.
    pub(crate) verdicts: [Verdict; BURST],
    /// Those among them that are forwarded and ready to leave.
    pub(crate) ready: Prepared,
    /// Of the packet that is looked at.
    pub(crate) place: u8,
    pub(crate) ipv4: FamilyBatch<Key4>,
    pub(crate) ipv6: FamilyBatch<Key6>,
    pub(crate) firsts: ArrayVec<First, BURST>,
    /// How many of this burst's packets may open a connection, and how many may still.
    granted: u32,
    pub(crate) openings: u32,
}

/// What neither opens nor closes is all alike.
const GOING_ON: Kind = Kind::Segment(TcpFlags::ACK);

impl<K: Family> FamilyBatch<K> {
    fn new() -> Self {
        Self {
            keys: [PackedKey::default(); BURST],
            hashed: [HashedKey::default(); BURST],
            kinds: [GOING_ON; BURST],
            asked: BurstMask::NONE,
            going_on: BurstMask::NONE,
            coming_back: BurstMask::NONE,
            unsought: BurstMask::NONE,
        }
    }

    #[inline]
    fn clear(&mut self) {
        (self.asked, self.unsought) = (BurstMask::NONE, BurstMask::NONE);
        (self.going_on, self.coming_back) = (BurstMask::NONE, BurstMask::NONE);
    }

    pub(crate) fn kind(&self, place: usize) -> Kind {
        if self.going_on.has(place) { GOING_ON } else { self.kinds[place] }
    }

    fn connection_of(&self, place: usize) -> Option<(AnyKey, Kind)> {
        self.asked.has(place).then(|| (self.keys[place].key().any(), self.kind(place)))
    }

    /// The connections of plain segments that go on. Their lookup begins when [`seek`](Self::seek) is called.
    #[inline(always)]
    pub(crate) fn ask_all(&mut self, places: BurstMask, key: impl Fn(usize) -> PackedKey<K>) {
        for place in places {
            self.keys[place] = key(place);
        }
        self.asked |= places;
        self.going_on |= places;
        self.unsought |= places;
    }

    /// Begins a lookup: asks for memory that takes long to come.
    #[inline(always)]
    pub(crate) fn prefetch(&mut self, table: &FlowTable<K>, place: usize) {
        self.hashed[place] = table.prefetch_primary(&self.keys[place]);
    }
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            verdicts: [Verdict::drop(Reason::Orphan); BURST],
            ready: Prepared::NONE,
            place: 0,
            ipv4: FamilyBatch::new(),
            ipv6: FamilyBatch::new(),
            firsts: ArrayVec::new(),
            granted: 0,
            openings: 0,
        }
    }

    /// For a burst of which so many packets may open a connection.
    #[inline(always)]
    pub(crate) fn grant(&mut self, openings: u32) {
        (self.granted, self.openings) = (openings, openings);
    }

    /// Nothing is known of any packet.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.ready = Prepared::NONE;
        self.ipv4.clear();
        self.ipv6.clear();
        self.firsts.clear();
        self.grant(0);
    }

    /// Whether one more may.
    #[inline]
    pub(crate) fn may_open(&mut self) -> bool {
        let may = self.openings > 0;
        self.openings = self.openings.saturating_sub(1);
        may
    }

    /// Whether the burst has packets beside those that may open a connection.
    #[inline]
    pub(crate) fn have_established(&self) -> bool {
        (self.ipv4.asked | self.ipv6.asked).count() > self.granted - self.openings
    }

    /// Whose packet this is, when it is held.
    pub(crate) fn connection_of(&self, packet: usize) -> Option<(AnyKey, Kind)> {
        self.ipv4.connection_of(packet).or_else(|| self.ipv6.connection_of(packet))
    }

    /// The VIPAs of all packets that have a connection, by their index in the burst.
    pub(crate) fn vipas(&self) -> impl Iterator<Item = (usize, VipaId)> + '_ {
        let ipv4 = self.ipv4.asked.map(|index| (index, self.ipv4.keys[index].key().vipa));
        ipv4.chain(self.ipv6.asked.map(|index| (index, self.ipv6.keys[index].key().vipa)))
    }

    /// The connection will decide; its lookup begins. Until then, and should nobody decide, the packet is an orphan.
    #[inline(always)]
    pub(crate) fn ask<K: Laned>(&mut self, flows: &Flows, key: K, kind: Kind) -> Verdict {
        let (key, place) = (PackedKey::new(&key), usize::from(self.place));
        let lane = K::lane(self);
        (lane.keys[place], lane.hashed[place], lane.kinds[place]) = (key, K::table(flows).prefetch_primary(&key), kind);
        lane.asked.add(place);
        Verdict::drop(Reason::Orphan)
    }

    /// The packet being classified is a first part.
    pub(crate) fn note_first(&mut self, part: FirstPart) {
        self.firsts.push(First { packet: self.place, part });
    }
}

/// A key that has a lane of its own.
pub(crate) trait Laned: Family {
    fn lane(batch: &mut Batch) -> &mut FamilyBatch<Self>;
}

impl Laned for Key4 {
    #[inline(always)]
    fn lane(batch: &mut Batch) -> &mut FamilyBatch<Self> {
        &mut batch.ipv4
    }
}

impl Laned for Key6 {
    #[inline(always)]
    fn lane(batch: &mut Batch) -> &mut FamilyBatch<Self> {
        &mut batch.ipv6
    }
}
