//! Neighbours that ignore announcements are asked something as the VIPA: a question, too, says where its sender is, and
//! they heed that (RFC 826, RFC 4861 §7.2.3).
//!
//! ```text
//!   a VIPA is announced ──► its gateways ──────────────────────────────────────► a few in each turn of housekeeping
//!                      └──► walk of the table: its clients on a port's network ──┘
//! ```
//! A walk of a large table takes long, so it runs beside the loop, and one finds the clients of all VIPAs that wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use vipa_flow::FlowState;
use vipa_handoff::{Flows, PortRoute, next_neighbour};
use vipa_model::{Moment, PortId, VipaId};

use crate::{
    control::{Control, send_frame, vipa_id},
    network::announcements,
};

/// Questions sent in one turn of housekeeping: 3,200 a second.
const AT_ONCE: usize = 16;
/// Questions that wait; more are left out.
const MOST_WAITING: usize = 8_192;
/// Neighbours that a walk finds for one VIPA, and for all together.
const NEIGHBOURS_OF_VIPA: usize = 1_024;
const NEIGHBOURS: usize = 4_096;
/// Between two walks for one VIPA; what the last one found is asked until the next.
const WALK_AGAIN: Duration = Duration::from_secs(10);

/// The neighbours of each VIPA by which its clients reach it.
type ClientNeighbours = BTreeMap<IpAddr, BTreeSet<IpAddr>>;

/// What a walk has found.
#[derive(Debug)]
struct Walk {
    found: ClientNeighbours,
    /// Connections whose neighbour found no place.
    left_out: u64,
}

/// Whom to ask as which VIPA.
#[derive(Debug, Default)]
pub(crate) struct NeighbourPrompts {
    /// A VIPA and the neighbour to ask as it.
    waiting: BTreeSet<(IpAddr, IpAddr)>,
    /// VIPAs whose clients are to be looked for.
    unknown: BTreeSet<IpAddr>,
    found: ClientNeighbours,
    walked: BTreeMap<IpAddr, Moment>,
    walk: Option<mpsc::Receiver<Walk>>,
    left_out: u64,
}

impl NeighbourPrompts {
    /// A VIPA has been announced, or its table is complete: its gateways and clients are to learn of it.
    pub(crate) fn want(&mut self, vipa: IpAddr, ports: &[PortRoute], now: Moment) {
        let gateways = ports.iter().filter_map(|port| match vipa {
            IpAddr::V4(_) => port.gateway.map(IpAddr::V4),
            IpAddr::V6(_) => port.gateway6.map(IpAddr::V6),
        });
        gateways.for_each(|gateway| self.wait(vipa, gateway));
        if self.walked.get(&vipa).is_none_or(|walked| now.since(*walked) >= WALK_AGAIN) {
            self.unknown.insert(vipa);
            return;
        }
        for neighbour in self.found.get(&vipa).cloned().unwrap_or_default() {
            self.wait(vipa, neighbour);
        }
    }

    /// As [`Self::want`], and its connections are others than the last walk has met.
    pub(crate) fn want_anew(&mut self, vipa: IpAddr) {
        self.unknown.insert(vipa);
    }

    /// The VIPA is another router's now.
    pub(crate) fn end(&mut self, vipa: IpAddr) {
        self.waiting.retain(|(of, _)| *of != vipa);
        self.unknown.remove(&vipa);
        self.found.remove(&vipa);
        self.walked.remove(&vipa);
    }

    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    fn wait(&mut self, vipa: IpAddr, neighbour: IpAddr) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.insert((vipa, neighbour));
        } else {
            self.left_out += 1;
        }
    }

    /// The VIPAs to walk for, if there are some and no walk is under way.
    fn begin_walk(&mut self, now: Moment) -> Option<(BTreeSet<IpAddr>, mpsc::Sender<Walk>)> {
        if self.walk.is_some() || self.unknown.is_empty() {
            return None;
        }
        let vipas = std::mem::take(&mut self.unknown);
        self.walked.extend(vipas.iter().map(|vipa| (*vipa, now)));
        let (tell, told) = mpsc::channel(1);
        self.walk = Some(told);
        Some((vipas, tell))
    }

    /// Takes in what a walk has found, if one has ended.
    fn end_walk(&mut self) {
        let Some(walk) = &mut self.walk else { return };
        match walk.try_recv() {
            Err(mpsc::error::TryRecvError::Empty) => {}
            Err(mpsc::error::TryRecvError::Disconnected) => self.walk = None,
            Ok(Walk { found, left_out }) => {
                self.walk = None;
                self.left_out += left_out;
                for (vipa, neighbours) in found {
                    // It may have been lost meanwhile.
                    if self.walked.contains_key(&vipa) {
                        neighbours.iter().for_each(|neighbour| self.wait(vipa, *neighbour));
                        self.found.insert(vipa, neighbours);
                    }
                }
            }
        }
    }

    /// The next to ask, a few.
    fn next(&mut self) -> Vec<(IpAddr, IpAddr)> {
        std::iter::from_fn(|| self.waiting.pop_first()).take(AT_ONCE).collect()
    }
}

/// Walks the whole table once.
fn walk(flows: &Flows, vipas: &BTreeMap<VipaId, IpAddr>, ports: &[PortRoute]) -> Walk {
    let (mut found, mut all, mut left_out) = (ClientNeighbours::new(), 0, 0);
    flows.export_where(&|id| vipas.contains_key(&id), &mut |key, _, state| {
        let client = key.connection().client.ip();
        let (Some(vipa), Some((_, neighbour))) = (vipas.get(&key.vipa()), next_neighbour(ports, client)) else {
            return;
        };
        if state == FlowState::Ended {
            return;
        }
        let known = found.entry(*vipa).or_default();
        if known.contains(&neighbour) {
            return;
        }
        if known.len() < NEIGHBOURS_OF_VIPA && all < NEIGHBOURS {
            all += 1;
            known.insert(neighbour);
        } else {
            left_out += 1;
        }
    });
    Walk { found, left_out }
}

impl Control {
    /// Asks the next neighbours, and looks for more.
    pub(crate) fn ask_as_vipas(&mut self, now: Moment) {
        self.neighbour_prompts.end_walk();
        if let Some((vipas, tell)) = self.neighbour_prompts.begin_walk(now) {
            let id = |vipa: IpAddr| Some((vipa_id(self.routing.vipa_index(vipa)?), vipa));
            let ids: BTreeMap<VipaId, IpAddr> = vipas.into_iter().filter_map(id).collect();
            let (flows, ports) = (Arc::clone(&self.flows), self.routing.ports.clone());
            let hold = self.reclaim.tasks.hold();
            tokio::task::spawn_blocking(move || {
                let _hold = hold;
                // Control has ended if nobody takes it.
                let _ = tell.try_send(walk(&flows, &ids, &ports));
            });
        }
        for (vipa, neighbour) in self.neighbour_prompts.next() {
            let Some((id, neighbour)) = next_neighbour(&self.routing.ports, neighbour) else { continue };
            let Some(port) = self.routing.ports.get(usize::from(id.0)) else { continue };
            if self.may_announce(vipa, now) && !self.is_own(id, neighbour) {
                send_frame(&self.channel, &self.counts, (id, port), &announcements::question_as(port, vipa, neighbour));
            }
        }
    }

    fn is_own(&self, port: PortId, address: IpAddr) -> bool {
        self.routing.ports.get(usize::from(port.0)).is_some_and(|port| port.has(address))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_flow::{HashSeed, Tick};
    use vipa_handoff::AnyKey;
    use vipa_model::{Connection, Mac, Protocol, TargetId};

    use super::*;

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);

    fn ports() -> Vec<PortRoute> {
        let port = PortRoute::new(Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(198, 51, 100, 1), 24);
        vec![PortRoute { gateway: Some(GATEWAY), ..port }]
    }

    fn at(ms: u64) -> Moment {
        Moment(5_000_000_000) + Duration::from_millis(ms)
    }

    /// A table with one connection of each client to the VIPA.
    fn table(clients: impl IntoIterator<Item = Ipv4Addr>) -> Flows {
        let flows = Flows::new(1 << 14, 64, HashSeed::new([7; 4])).unwrap();
        for client in clients {
            let connection = Connection { protocol: Protocol::Tcp, client: (client, 40_000).into(), port: 80 };
            let key = AnyKey::of(VipaId(0), VIPA, &connection).unwrap();
            flows.admit(&key, TargetId(0), FlowState::Open, Tick(1));
        }
        flows
    }

    fn walked(clients: impl IntoIterator<Item = Ipv4Addr>) -> Walk {
        walk(&table(clients), &[(VipaId(0), VIPA)].into(), &ports())
    }

    #[test]
    fn clients_on_the_network_are_asked_themselves_and_of_others_the_gateway() {
        let near = [Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(198, 51, 100, 8)];
        let far = (0..100).map(|number| Ipv4Addr::new(203, 0, 113, number));
        let Walk { found, left_out } = walked(near.into_iter().chain(far));
        let expected: BTreeSet<IpAddr> = [near[0], near[1], GATEWAY].map(IpAddr::V4).into();
        assert_eq!((found, left_out), ([(VIPA, expected)].into(), 0));
    }

    #[test]
    fn no_more_clients_are_found_than_have_a_place() {
        let mut wide = ports();
        wide[0].prefix_length = 16;
        let flows = table((0..3_000).map(|number| Ipv4Addr::from_bits(0xc633_0000 + number)));
        let Walk { found, left_out } = walk(&flows, &[(VipaId(0), VIPA)].into(), &wide);
        assert_eq!((found[&VIPA].len(), left_out), (NEIGHBOURS_OF_VIPA, 3_000 - NEIGHBOURS_OF_VIPA as u64));
    }

    #[test]
    fn each_announcement_asks_the_gateway_at_once_and_the_clients_once_they_are_found() {
        let mut questions = NeighbourPrompts::default();
        questions.want(VIPA, &ports(), at(0));
        assert_eq!(questions.next(), [(VIPA, IpAddr::V4(GATEWAY))]);
        let (vipas, tell) = questions.begin_walk(at(0)).unwrap();
        assert_eq!(vipas, [VIPA].into());
        questions.want(OTHER, &ports(), at(1));
        assert!(questions.begin_walk(at(1)).is_none(), "one at a time");
        let client = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
        tell.try_send(Walk { found: [(VIPA, [client].into())].into(), left_out: 0 }).unwrap();
        questions.end_walk();
        assert_eq!(questions.next(), [(VIPA, client), (OTHER, GATEWAY.into())]);
        assert_eq!(questions.begin_walk(at(2)).map(|(vipas, _)| vipas), Some([OTHER].into()));

        questions.want(VIPA, &ports(), at(100));
        assert_eq!(questions.next(), [(VIPA, client), (VIPA, GATEWAY.into())], "the walk is young");
        questions.want(VIPA, &ports(), at(60_000));
        assert!(questions.unknown.contains(&VIPA));
        questions.end(VIPA);
        assert!(questions.waiting.is_empty() && questions.unknown.is_empty() && questions.found.is_empty());
    }

    #[test]
    fn a_few_are_asked_in_a_turn_and_what_finds_no_place_is_counted() {
        let mut questions = NeighbourPrompts::default();
        for number in 0..10_000 {
            questions.wait(VIPA, IpAddr::V4(Ipv4Addr::from_bits(number)));
        }
        assert_eq!((questions.next().len(), questions.left_out()), (AT_ONCE, 10_000 - MOST_WAITING as u64));
    }
}
