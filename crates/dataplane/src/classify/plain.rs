//! Plain TCP segments, which nearly all packets are: directly after a header of either family. Those of a burst are
//! classified together.

use vipa_flow::{
    Key4, Key6, PackedKey,
    vectors::{Vectors, Work},
};
use vipa_handoff::Routes;
use vipa_model::{Protocol, VipaId};
use vipa_packet::{HeaderColumns, HeaderSums, Ipv4Segments, Ipv6Segments, PacketBuf, Station, Tcp};

use super::{
    ArrivedBurst,
    vipa::{Addressed, VipaPacket},
};
use crate::{
    BURST, TurnContext,
    batch::{Batch, BatchFamily, FamilyBatch},
    family::Family,
    mask::BurstMask,
};

/// Begins the lookups of segments to a VIPA and of segments that return from a target. Returns the packets that are
/// left, which it has not changed.
#[inline(always)]
pub(super) fn plain<B: PacketBuf>(
    context: &TurnContext<'_>,
    station: Station,
    burst: &ArrivedBurst<'_, B>,
    vectors: Vectors,
    (columns, batch): (&mut HeaderColumns, &mut Batch),
) -> BurstMask {
    let &ArrivedBurst { sums, packets: burst, .. } = burst;
    for (index, packet) in (0..BURST).zip(burst) {
        columns.load(index, packet.bytes());
    }
    let mut left = BurstMask::first(burst.len());
    // The first frame's family first: usually there are few packets of the other one.
    let ipv6_first = columns.is_ipv6(0);
    if ipv6_first {
        left = left & !ipv6(vectors, Ipv6 { context, station, burst, left, columns, batch });
    }
    if !left.is_empty() {
        left = left & !ipv4(context, vectors, (station, sums), left, (columns, batch));
    }
    if !left.is_empty() && !ipv6_first {
        left = left & !ipv6(vectors, Ipv6 { context, station, burst, left, columns, batch });
    }
    left
}

#[inline(always)]
fn ipv4(
    context: &TurnContext<'_>,
    vectors: Vectors,
    (station, sums): (Station, HeaderSums),
    left: BurstMask,
    (columns, batch): (&mut HeaderColumns, &mut Batch),
) -> BurstMask {
    match sums {
        HeaderSums::Unverified => _ = columns.segments(station, sums),
        HeaderSums::Verified => find_verified(vectors, Verified { station, columns }),
    }
    let segments = columns.last_segments();
    let plain = left & BurstMask(segments.plain);
    let known = look_up_all(context, segments, plain & BurstMask(segments.mid_stream), &mut batch.ipv4);
    if plain == known {
        known
    } else {
        known | look_up_each(context, plain & !known, batch, |index| columns.segment(index))
    }
}

/// A separate function: what some ports save costs the others nothing.
#[cold]
#[inline(never)]
fn find_verified(vectors: Vectors, burst: Verified<'_>) {
    vectors.run(burst);
}

/// The headers of a burst whose checksums the port has verified.
struct Verified<'a> {
    station: Station,
    columns: &'a mut HeaderColumns,
}

impl Work for Verified<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.columns.segments(self.station, HeaderSums::Verified);
    }
}

/// A separate function, so that each family has all registers.
#[inline(never)]
fn ipv6<B: PacketBuf>(vectors: Vectors, burst: Ipv6<'_, B>) -> BurstMask {
    vectors.run(burst)
}

/// The work of [`ipv4`] for a burst of IPv6, whose headers have more words.
struct Ipv6<'a, B> {
    context: &'a TurnContext<'a>,
    station: Station,
    burst: &'a [B],
    left: BurstMask,
    columns: &'a mut HeaderColumns,
    batch: &'a mut Batch,
}

impl<B: PacketBuf> Work for Ipv6<'_, B> {
    type Output = BurstMask;

    #[inline(always)]
    fn run(self) -> BurstMask {
        let Self { context, station, burst, left, columns, batch } = self;
        let left = left & BurstMask(columns.ipv6());
        if left.is_empty() {
            return BurstMask::NONE;
        }
        for (index, packet) in left.filter_map(|index| Some((index, burst.get(index)?))) {
            columns.load_ipv6(index, packet.bytes());
        }
        let segments = columns.segments6(station);
        let plain = left & BurstMask(segments.plain);
        let known = look_up_all(context, segments, plain & BurstMask(segments.mid_stream), &mut batch.ipv6);
        if plain == known {
            return known;
        }
        known | look_up_each(context, plain & !known, batch, |index| columns.segment6(index))
    }
}

/// Begins the lookups of mid-stream segments, one VIPA after another, of which a burst has few. Returns the segments
/// that are to a VIPA.
#[inline(always)]
fn look_up_all<S: SideBySide>(
    context: &TurnContext<'_>,
    segments: &S,
    mid_stream: BurstMask,
    family: &mut FamilyBatch<S::Key>,
) -> BurstMask {
    let (mut left, mut known) = (mid_stream, BurstMask::NONE);
    while let Some(first) = { left }.next() {
        let alike = left & segments.to_the_same(first);
        left = left & !alike;
        if let Some(vipa) = segments.find_vipa(context.routes, first) {
            family.look_up_all(alike, |index| segments.key(index, vipa));
            known |= alike;
        }
    }
    known
}

/// Begins the lookups of segments that open or close, or return from a target, one by one. Returns those that have a
/// connection.
#[inline(never)]
fn look_up_each<A: Addressed>(
    context: &TurnContext<'_>,
    segments: BurstMask,
    batch: &mut Batch,
    segment: impl Fn(usize) -> Tcp<A>,
) -> BurstMask {
    let mut known = BurstMask::NONE;
    for index in segments {
        batch.index = index as u8;
        known.add_if(index, look_up_one(context, &segment(index), batch));
    }
    known
}

/// Classifies one segment. A mid-stream one is known to be to no VIPA.
#[inline(always)]
fn look_up_one<A: Addressed>(context: &TurnContext<'_>, segment: &Tcp<A>, batch: &mut Batch) -> bool {
    let (is_mid_stream, index) = (segment.flags.is_mid_stream(), usize::from(batch.index));
    let verdict = if is_mid_stream { segment.look_up_return(context, batch) } else { segment.to_vipa(context, batch) };
    let Some(verdict) = verdict else { return false };
    batch.verdicts[index] = verdict;
    if is_mid_stream {
        let family = A::Key::family_batch(batch);
        family.returning.add_if(index, family.with_connection.has(index));
    }
    true
}

/// The segments of one family, in columns.
trait SideBySide {
    type Key: Family + BatchFamily;

    /// Packets of the burst that have the same destination as this one.
    fn to_the_same(&self, index: usize) -> BurstMask;
    fn find_vipa(&self, routes: &Routes, index: usize) -> Option<VipaId>;
    fn key(&self, index: usize, vipa: VipaId) -> PackedKey<Self::Key>;
}

impl SideBySide for Ipv4Segments {
    type Key = Key4;

    #[inline(always)]
    fn to_the_same(&self, index: usize) -> BurstMask {
        let destination = self.destinations[index];
        BurstMask::those(|other| self.destinations[other] == destination)
    }

    #[inline(always)]
    fn find_vipa(&self, routes: &Routes, index: usize) -> Option<VipaId> {
        routes.find_vipa(self.destinations[index])
    }

    #[inline(always)]
    fn key(&self, index: usize, vipa: VipaId) -> PackedKey<Key4> {
        PackedKey::from_ends(self.endpoints[index], vipa, Protocol::Tcp)
    }
}

impl SideBySide for Ipv6Segments {
    type Key = Key6;

    #[inline(always)]
    fn to_the_same(&self, index: usize) -> BurstMask {
        let [high, low] = &self.destinations;
        let destination = [high[index], low[index]];
        BurstMask::those(|other| (high[other] ^ destination[0]) | (low[other] ^ destination[1]) == 0)
    }

    #[inline(always)]
    fn find_vipa(&self, routes: &Routes, index: usize) -> Option<VipaId> {
        let [high, low] = &self.destinations;
        routes.find_vipa6(u128::from(high[index]) << 64 | u128::from(low[index]))
    }

    #[inline(always)]
    fn key(&self, index: usize, vipa: VipaId) -> PackedKey<Key6> {
        let [high, low] = &self.clients;
        PackedKey::from_words([high[index], low[index], self.ports[index]], vipa, Protocol::Tcp)
    }
}
