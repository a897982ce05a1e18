//! The packets of a burst side by side: what is known about each so far.

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
    /// Forward a later fragment, which has no ports; the number is its connection's entropy for outer headers.
    ForwardPart(TargetId, u32),
    /// Send to the client, with this VIPA and port as the source.
    Return(VipaId, u16),
    Answer(LocalReply),
    /// Send to the kernel interface `PortId`.
    ToKernel(PortId),
    /// Send a packet of the kernel out of this port.
    FromKernel(PortId),
    /// Hold: its connection may become known.
    HoldQueue,
    /// Hold for a moment: the target that opened the connection may report it.
    HoldSynAck,
    /// Hold: the packet's first fragment may arrive.
    HoldFragment,
    /// Nothing more to do; this is its fate.
    Done(Fate),
}

impl Verdict {
    pub(crate) const fn drop(reason: Reason) -> Self {
        Self::Done(Fate::Drop(reason))
    }
}

/// What a packet means to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Segment(TcpFlags),
    Datagram,
    /// An ICMP error about the connection. It must reach the target that sends too much or in vain.
    Error,
    /// From this target, on its way to the client: a segment's flags, or none for a datagram or an ICMP error.
    Return(TargetId, Option<TcpFlags>),
}

/// The packets of one family that have a connection, by their index in the burst.
pub(crate) struct FamilyBatch<K: Family> {
    pub(crate) keys: [PackedKey<K>; BURST],
    pub(crate) hashed: [HashedKey; BURST],
    kinds: [Kind; BURST],
    /// Packets of the family that have a connection.
    pub(crate) with_connection: BurstMask,
    /// Those that are mid-stream segments (neither open nor close), without options or tags before them. Their `kinds`
    /// element is not set.
    pub(crate) mid_stream: BurstMask,
    /// Plain mid-stream segments on their way back from a target; their kind names the target.
    pub(crate) returning: BurstMask,
    /// Those whose lookup has not begun.
    pub(crate) unprefetched: BurstMask,
}

/// A first fragment, which decides where the later fragments of its packet go.
#[derive(Clone, Copy)]
pub(crate) struct First {
    pub(crate) packet: u8,
    pub(crate) part: FirstPart,
}

pub(crate) struct Batch {
    /// By index in the burst.
    pub(crate) verdicts: [Verdict; BURST],
    /// Packets that are forwarded and prepared to leave.
    pub(crate) prepared: Prepared,
    /// Index of the packet that is being classified.
    pub(crate) index: u8,
    pub(crate) ipv4: FamilyBatch<Key4>,
    pub(crate) ipv6: FamilyBatch<Key6>,
    pub(crate) firsts: ArrayVec<First, BURST>,
    /// Packets of this burst that may open a connection: at first, and from now on.
    new_flow_budget: u32,
    pub(crate) new_flows_left: u32,
}

/// All mid-stream segments have the same kind.
const MID_STREAM: Kind = Kind::Segment(TcpFlags::ACK);

impl<K: Family> FamilyBatch<K> {
    fn new() -> Self {
        Self {
            keys: [PackedKey::default(); BURST],
            hashed: [HashedKey::default(); BURST],
            kinds: [MID_STREAM; BURST],
            with_connection: BurstMask::NONE,
            mid_stream: BurstMask::NONE,
            returning: BurstMask::NONE,
            unprefetched: BurstMask::NONE,
        }
    }

    #[inline]
    fn clear(&mut self) {
        (self.with_connection, self.unprefetched) = (BurstMask::NONE, BurstMask::NONE);
        (self.mid_stream, self.returning) = (BurstMask::NONE, BurstMask::NONE);
    }

    pub(crate) fn kind(&self, index: usize) -> Kind {
        if self.mid_stream.has(index) { MID_STREAM } else { self.kinds[index] }
    }

    fn connection_of(&self, index: usize) -> Option<(AnyKey, Kind)> {
        self.with_connection.has(index).then(|| (self.keys[index].key().any(), self.kind(index)))
    }

    /// Registers the connections of plain mid-stream segments. Their lookup begins when [`prefetch`](Self::prefetch) is
    /// called.
    #[inline(always)]
    pub(crate) fn look_up_all(&mut self, packets: BurstMask, key: impl Fn(usize) -> PackedKey<K>) {
        for index in packets {
            self.keys[index] = key(index);
        }
        self.with_connection |= packets;
        self.mid_stream |= packets;
        self.unprefetched |= packets;
    }

    /// Begins a lookup: prefetches the primary bucket.
    #[inline(always)]
    pub(crate) fn prefetch(&mut self, table: &FlowTable<K>, index: usize) {
        self.hashed[index] = table.prefetch_primary(&self.keys[index]);
    }
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            verdicts: [Verdict::drop(Reason::Orphan); BURST],
            prepared: Prepared::NONE,
            index: 0,
            ipv4: FamilyBatch::new(),
            ipv6: FamilyBatch::new(),
            firsts: ArrayVec::new(),
            new_flow_budget: 0,
            new_flows_left: 0,
        }
    }

    /// Sets how many packets of the burst may open a connection.
    #[inline(always)]
    pub(crate) fn set_new_flow_budget(&mut self, new_flows_left: u32) {
        (self.new_flow_budget, self.new_flows_left) = (new_flows_left, new_flows_left);
    }

    /// Forgets everything about the packets.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.prepared = Prepared::NONE;
        self.ipv4.clear();
        self.ipv6.clear();
        self.firsts.clear();
        self.set_new_flow_budget(0);
    }

    /// Takes one from the budget of new connections, if any is left.
    #[inline]
    pub(crate) fn may_open(&mut self) -> bool {
        let may = self.new_flows_left > 0;
        self.new_flows_left = self.new_flows_left.saturating_sub(1);
        may
    }

    /// Whether the burst has packets beside those that may open a connection.
    #[inline]
    pub(crate) fn have_established(&self) -> bool {
        (self.ipv4.with_connection | self.ipv6.with_connection).count() > self.new_flow_budget - self.new_flows_left
    }

    /// The connection of a packet, for holding it.
    pub(crate) fn connection_of(&self, packet: usize) -> Option<(AnyKey, Kind)> {
        self.ipv4.connection_of(packet).or_else(|| self.ipv6.connection_of(packet))
    }

    /// The VIPAs of all packets that have a connection, by their index in the burst.
    pub(crate) fn vipas(&self) -> impl Iterator<Item = (usize, VipaId)> + '_ {
        let ipv4 = self.ipv4.with_connection.map(|index| (index, self.ipv4.keys[index].key().vipa));
        ipv4.chain(self.ipv6.with_connection.map(|index| (index, self.ipv6.keys[index].key().vipa)))
    }

    /// Begins the lookup of the packet's connection, which will decide about it. Until then, and if nothing decides,
    /// the packet is an orphan.
    #[inline(always)]
    pub(crate) fn look_up<K: BatchFamily>(&mut self, flows: &Flows, key: K, kind: Kind) -> Verdict {
        let (key, index) = (PackedKey::new(&key), usize::from(self.index));
        let family = K::family_batch(self);
        (family.keys[index], family.hashed[index], family.kinds[index]) =
            (key, K::table(flows).prefetch_primary(&key), kind);
        family.with_connection.add(index);
        Verdict::drop(Reason::Orphan)
    }

    /// Records that the packet that is being classified is a first fragment.
    pub(crate) fn note_first(&mut self, part: FirstPart) {
        self.firsts.push(First { packet: self.index, part });
    }
}

/// A key whose family has a batch of its own.
pub(crate) trait BatchFamily: Family {
    fn family_batch(batch: &mut Batch) -> &mut FamilyBatch<Self>;
}

impl BatchFamily for Key4 {
    #[inline(always)]
    fn family_batch(batch: &mut Batch) -> &mut FamilyBatch<Self> {
        &mut batch.ipv4
    }
}

impl BatchFamily for Key6 {
    #[inline(always)]
    fn family_batch(batch: &mut Batch) -> &mut FamilyBatch<Self> {
        &mut batch.ipv6
    }
}
