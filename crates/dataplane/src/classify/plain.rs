//! What nearly every packet is: a TCP segment directly after a header of either family. All those of a burst are looked at together.

use vipa_flow::{
    Key4, Key6, PackedKey,
    vectors::{Vectors, Work},
};
use vipa_handoff::Routes;
use vipa_model::{Protocol, VipaId};
use vipa_packet::{HeaderColumns, HeaderSums, Ipv4Segments, Ipv6Segments, PacketBuf, Station, Tcp};

use super::{
    Arrived,
    vipa::{Addressed, VipaPacket},
};
use crate::{
    BURST, TurnContext,
    batch::{Batch, FamilyBatch, Laned},
    family::Family,
    mask::BurstMask,
};

/// Asks for the connections of segments to a VIPA, and of those that come back from a target. Says who is left; to these nothing was
/// done.
#[inline(always)]
pub(super) fn plain<B: PacketBuf>(
    context: &TurnContext<'_>,
    station: Station,
    burst: &Arrived<'_, B>,
    vectors: Vectors,
    (columns, batch): (&mut HeaderColumns, &mut Batch),
) -> BurstMask {
    let &Arrived { sums, packets: burst, .. } = burst;
    for (place, packet) in (0..BURST).zip(burst) {
        columns.load(place, packet.bytes());
    }
    let mut left = BurstMask::first(burst.len());
    // The first frame's family before the other, of which mostly nothing is there.
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
    let known = ask_all(context, segments, plain & BurstMask(segments.mid_stream), &mut batch.ipv4);
    if plain == known {
        known
    } else {
        known | ask_each(context, plain & !known, batch, |place| columns.segment(place))
    }
}

/// In a function of its own: what some ports spare costs the others nothing.
#[cold]
#[inline(never)]
fn find_verified(vectors: Vectors, burst: Verified<'_>) {
    vectors.run(burst);
}

/// The headers of a burst, whose sums the port has found right.
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

/// In a function of its own, so that either family has the registers for itself.
#[inline(never)]
fn ipv6<B: PacketBuf>(vectors: Vectors, burst: Ipv6<'_, B>) -> BurstMask {
    vectors.run(burst)
}

/// What [`ipv4`] does, in a burst with further words to note.
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
        for (place, packet) in left.filter_map(|place| Some((place, burst.get(place)?))) {
            columns.load_ipv6(place, packet.bytes());
        }
        let segments = columns.segments6(station);
        let plain = left & BurstMask(segments.plain);
        let known = ask_all(context, segments, plain & BurstMask(segments.mid_stream), &mut batch.ipv6);
        if plain == known {
            return known;
        }
        known | ask_each(context, plain & !known, batch, |place| columns.segment6(place))
    }
}

/// Asks for the connections of segments that go on: one VIPA after another, of which a burst has few. Says whose there is one.
#[inline(always)]
fn ask_all<S: SideBySide>(
    context: &TurnContext<'_>,
    segments: &S,
    mid_stream: BurstMask,
    lane: &mut FamilyBatch<S::Key>,
) -> BurstMask {
    let (mut left, mut known) = (mid_stream, BurstMask::NONE);
    while let Some(first) = { left }.next() {
        let alike = left & segments.to_the_same(first);
        left = left & !alike;
        if let Some(vipa) = segments.find_vipa(context.routes, first) {
            lane.ask_all(alike, |place| segments.key(place, vipa));
            known |= alike;
        }
    }
    known
}

/// The same for segments that open or close, or come back from a target, one by one.
#[inline(never)]
fn ask_each<A: Addressed>(
    context: &TurnContext<'_>,
    segments: BurstMask,
    batch: &mut Batch,
    segment: impl Fn(usize) -> Tcp<A>,
) -> BurstMask {
    let mut known = BurstMask::NONE;
    for place in segments {
        batch.place = place as u8;
        known.add_if(place, ask_one(context, &segment(place), batch));
    }
    known
}

/// What goes on has been found to be for no VIPA.
#[inline(always)]
fn ask_one<A: Addressed>(context: &TurnContext<'_>, segment: &Tcp<A>, batch: &mut Batch) -> bool {
    let (is_mid_stream, place) = (segment.flags.is_mid_stream(), usize::from(batch.place));
    let asked = if is_mid_stream { segment.coming_back(context, batch) } else { segment.to_vipa(context, batch) };
    let Some(verdict) = asked else { return false };
    batch.verdicts[place] = verdict;
    if is_mid_stream {
        let lane = A::Key::lane(batch);
        lane.coming_back.add_if(place, lane.asked.has(place));
    }
    true
}

/// A family's segments.
trait SideBySide {
    type Key: Family + Laned;

    /// Which of the burst have the destination that this one has.
    fn to_the_same(&self, place: usize) -> BurstMask;
    fn find_vipa(&self, routes: &Routes, place: usize) -> Option<VipaId>;
    fn key(&self, place: usize, vipa: VipaId) -> PackedKey<Self::Key>;
}

impl SideBySide for Ipv4Segments {
    type Key = Key4;

    #[inline(always)]
    fn to_the_same(&self, place: usize) -> BurstMask {
        let destination = self.destinations[place];
        BurstMask::those(|other| self.destinations[other] == destination)
    }

    #[inline(always)]
    fn find_vipa(&self, routes: &Routes, place: usize) -> Option<VipaId> {
        routes.find_vipa(self.destinations[place])
    }

    #[inline(always)]
    fn key(&self, place: usize, vipa: VipaId) -> PackedKey<Key4> {
        PackedKey::from_ends(self.endpoints[place], vipa, Protocol::Tcp)
    }
}

impl SideBySide for Ipv6Segments {
    type Key = Key6;

    #[inline(always)]
    fn to_the_same(&self, place: usize) -> BurstMask {
        let [high, low] = &self.destinations;
        let destination = [high[place], low[place]];
        BurstMask::those(|other| (high[other] ^ destination[0]) | (low[other] ^ destination[1]) == 0)
    }

    #[inline(always)]
    fn find_vipa(&self, routes: &Routes, place: usize) -> Option<VipaId> {
        let [high, low] = &self.destinations;
        routes.find_vipa6(u128::from(high[place]) << 64 | u128::from(low[place]))
    }

    #[inline(always)]
    fn key(&self, place: usize, vipa: VipaId) -> PackedKey<Key6> {
        let [high, low] = &self.clients;
        PackedKey::from_words([high[place], low[place], self.ports[place]], vipa, Protocol::Tcp)
    }
}
