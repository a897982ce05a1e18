//! Who was refused a link lately, or is linked and was not listened to: for `vipactl status`.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use vipa_model::{Moment, NodeName};
use vipa_protocol::admin::RefusedPeer;

/// A peer is named for this long after it was last refused.
const NAMED_FOR: Duration = Duration::from_secs(3_600);
/// Peers named at the same time; for one more, the one that was not refused for longest is forgotten.
const MAX_NAMED: usize = 64;

/// By what is known of each peer: the node, the address it comes from, or both.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    total: u64,
    peers: HashMap<PeerId, Refused>,
}

type PeerId = (Option<NodeName>, Option<IpAddr>);

#[derive(Debug)]
struct Refused {
    why: String,
    times: u64,
    /// Messages of the linked node that were not listened to before it was named here; `None`: its links are refused.
    denied_before: Option<u64>,
    last: Moment,
}

impl Refusals {
    /// So many attempts to link were refused, the last of them for this reason.
    pub(crate) fn note(&mut self, peer: PeerId, why: String, times: u64, now: Moment) {
        self.total = self.total.saturating_add(times);
        let times = self.peers.get(&peer).map_or(0, |refused| refused.times).saturating_add(times);
        self.keep(peer, Refused { why, times, denied_before: None, last: now });
    }

    /// A linked node was not listened to, so many times in this router's life.
    pub(crate) fn note_denied(&mut self, node: &NodeName, why: String, denied: u64, now: Moment) {
        let peer = (Some(node.clone()), None);
        let known = self.peers.get(&peer).and_then(|refused| refused.denied_before);
        let denied_before = known.unwrap_or_else(|| denied.saturating_sub(1));
        self.keep(peer, Refused { why, times: 0, denied_before: Some(denied_before), last: now });
    }

    fn keep(&mut self, peer: PeerId, refused: Refused) {
        let now = refused.last;
        if self.peers.len() >= MAX_NAMED && !self.peers.contains_key(&peer) {
            self.peers.retain(|_, refused| now.since(refused.last) < NAMED_FOR);
            let oldest = self.peers.iter().min_by_key(|(_, refused)| refused.last).map(|(peer, _)| peer.clone());
            if let Some(oldest) = oldest.filter(|_| self.peers.len() >= MAX_NAMED) {
                self.peers.remove(&oldest);
            }
        }
        self.peers.insert(peer, refused);
    }

    /// Attempts to link that were refused.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The latest first. `denied`: messages of a linked node that were not listened to.
    pub(crate) fn recent(&self, denied: impl Fn(&NodeName) -> u64, now: Moment) -> Vec<RefusedPeer> {
        let recent = self.peers.iter().filter(|(_, refused)| now.since(refused.last) < NAMED_FOR);
        let shown = recent.map(|((node, address), refused)| {
            let Refused { why, times, denied_before, last } = refused;
            let denied = || node.as_ref().map(&denied).unwrap_or_default();
            RefusedPeer {
                node: node.clone(),
                address: *address,
                why: why.clone(),
                times: denied_before.map_or(*times, |before| denied().saturating_sub(before)),
                last_ms_ago: u64::try_from(now.since(*last).as_millis()).unwrap_or(u64::MAX),
            }
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by(|a, b| (a.last_ms_ago, &a.node, a.address).cmp(&(b.last_ms_ago, &b.node, b.address)));
        shown
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a4d_0000 + number).into()
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_refused_peer_is_named_with_the_latest_reason_how_often_and_when() {
        let mut refusals = Refusals::default();
        let thief = || (Some(name("t9")), Some(address(99)));
        refusals.note(thief(), "it is linked already".into(), 1, at(10));
        refusals.note((None, Some(address(7))), "it has no certificate".into(), 1, at(20));
        refusals.note(thief(), "it is revoked".into(), 41, at(30));
        let expected = [
            RefusedPeer {
                node: Some(name("t9")),
                address: Some(address(99)),
                why: "it is revoked".into(),
                times: 42,
                last_ms_ago: 5_000,
            },
            RefusedPeer {
                node: None,
                address: Some(address(7)),
                why: "it has no certificate".into(),
                times: 1,
                last_ms_ago: 15_000,
            },
        ];
        assert_eq!(refusals.recent(|_| 0, at(35)), expected);
        assert_eq!(refusals.total(), 43);
        assert_eq!(refusals.recent(|_| 0, at(30 + 3_600)), []);
    }

    #[test]
    fn a_linked_node_that_is_not_listened_to_is_named_with_the_number_of_its_messages() {
        let mut refusals = Refusals::default();
        refusals.note_denied(&name("t1"), "only routers send it".into(), 1, at(0));
        refusals.note_denied(&name("t1"), "only voters send it".into(), 500, at(60));
        let shown = refusals.recent(|_| 700, at(61));
        assert_eq!(
            shown.iter().map(|peer| (peer.why.as_str(), peer.times)).collect::<Vec<_>>(),
            [("only voters send it", 700)]
        );
        assert_eq!(refusals.total(), 0, "it was refused no link");
    }

    #[test]
    fn peers_named_are_bounded_and_the_latest_stay() {
        let mut refusals = Refusals::default();
        for number in 0..1_000_u32 {
            refusals.note((None, Some(address(number))), String::new(), 1, at(number.into()));
        }
        let shown = refusals.recent(|_| 0, at(1_000));
        assert_eq!(shown.len(), MAX_NAMED);
        assert_eq!(shown[0].address, Some(address(999)));
        assert_eq!(refusals.total(), 1_000);
    }
}
