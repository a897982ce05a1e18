//! The beats that this router has sent and that may still be acknowledged.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Moment};
use vipa_protocol::{Beat, Owned};

use super::settings::Timing;

/// Bytes of one beat, at most: the least that a QUIC datagram carries on any path (1,200 bytes, RFC 9000 §14), without
/// what QUIC, the beat's number and the length of its list take.
const BEAT_BYTES: usize = 1_100;
/// Lower bound of the beat interval: with an interval of zero a router would send beats without end.
const SHORTEST_BEAT: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Beats {
    sequence: u64,
    last: Option<Moment>,
    /// VIPAs that the other nodes should receive a beat of now.
    urgent: BTreeSet<IpAddr>,
    /// Oldest first; none older than a lease, because no lease can result from it.
    sent: VecDeque<SentBeat>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SentBeat {
    sequence: u64,
    pub(super) at: Moment,
    pub(super) owned: Vec<(IpAddr, Epoch)>,
}

impl Beats {
    /// Records that a VIPA has changed in a way that the other nodes should receive now.
    pub(super) fn hurry(&mut self, vipa: IpAddr) {
        self.urgent.insert(vipa);
    }

    pub(super) fn due(&self, timing: &Timing) -> Moment {
        match self.last {
            Some(last) if self.urgent.is_empty() => last + timing.beat.max(SHORTEST_BEAT),
            _ => Moment::ZERO,
        }
    }

    /// Whether it is time for a beat of all owned VIPAs.
    pub(super) fn is_regular(&self, now: Moment, timing: &Timing) -> bool {
        self.last.is_none_or(|last| now >= last + timing.beat.max(SHORTEST_BEAT))
    }

    /// The VIPAs that the beat of this moment names: all owned ones, or, between two regular beats, the urgent ones. A
    /// beat of all VIPAs for each one that is taken over would cost the square of their number.
    pub(super) fn vipas(&mut self, now: Moment, owned: &BTreeSet<IpAddr>, timing: &Timing) -> BTreeSet<IpAddr> {
        let urgent = std::mem::take(&mut self.urgent);
        if self.is_regular(now, timing) {
            self.last = Some(now);
            return owned.clone();
        }
        urgent.intersection(owned).copied().collect()
    }

    pub(super) fn next(&mut self, now: Moment, owned: &[Owned], timing: &Timing) -> Vec<Beat> {
        while self.sent.front().is_some_and(|sent| now.since(sent.at) > timing.lease) {
            self.sent.pop_front();
        }
        let mut beats = Vec::new();
        for chunk in in_datagrams(owned) {
            self.sequence += 1;
            let names = chunk.iter().map(|owned| (owned.vipa, owned.epoch)).collect();
            self.sent.push_back(SentBeat { sequence: self.sequence, at: now, owned: names });
            beats.push(Beat { sequence: self.sequence, owned: chunk.to_vec() });
        }
        beats
    }

    pub(super) fn acknowledged(&self, sequence: u64) -> Option<&SentBeat> {
        let first = self.sent.front()?.sequence;
        self.sent.get(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }
}

/// Cuts a list into parts that fit a datagram each.
fn in_datagrams(owned: &[Owned]) -> impl Iterator<Item = &[Owned]> {
    let mut rest = owned;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |one: &&Owned| {
            bytes += one.encoded_bytes();
            bytes <= BEAT_BYTES
        };
        let count = rest.iter().take_while(fits).count().clamp(rest.len().min(1), rest.len());
        let (part, after) = rest.split_at(count);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}
