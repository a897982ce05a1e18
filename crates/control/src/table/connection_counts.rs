//! How many connections the table has, by VIPA, service and way.
//!
//! Walking a table of millions takes longer than a lease may last, so it happens beside the loop. Whoever needs the
//! numbers says what is to be done with them, and those who ask while a walk is under way share the next one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::mpsc;
use vipa_flow::FlowState;
use vipa_handoff::Flows;
use vipa_model::{PortRange, Protocol, Service, TargetId, VipaId};
use vipa_protocol::admin::Answer;

use crate::{
    admin::socket::Reply,
    control::{Control, vipa_id},
    network::paths::Paths,
};

/// The services of a VIPA, as far as they tell connections apart.
type Ports = Vec<(Protocol, PortRange)>;
/// What is done with the numbers, or without them.
type Then = Box<dyn FnOnce(&mut Control, Counting<'_>)>;
/// What a walk has come to.
pub(crate) type Counting<'a> = Result<&'a ConnectionCounts, &'a CountFailed>;

/// A walk of the table has panicked. The next one may do better.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connections of the table could not be counted; vipad's log says why")]
pub(crate) struct CountFailed;

/// The connections of one VIPA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) total: u64,
    /// Those that a target has confirmed.
    pub(crate) confirmed: u64,
    /// By service and way; `None`: no service names their port any more.
    by_service: HashMap<(Option<(Protocol, PortRange)>, TargetId), u64>,
    /// Those that a target has confirmed, by path.
    confirmed_by_path: HashMap<TargetId, u64>,
}

/// The table at one moment.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCounts {
    vipas: HashMap<VipaId, Counted>,
    nothing: Counted,
}

impl ConnectionCounts {
    /// Walks the whole table once. `services` are those of each VIPA, by its id.
    pub(crate) fn take(flows: &Flows, services: &[Ports]) -> Self {
        let mut vipas: HashMap<VipaId, Counted> = HashMap::new();
        flows.export_where(&|_| true, &mut |key, way, state| {
            if state == FlowState::Ended {
                return;
            }
            let counted = vipas.entry(key.vipa()).or_default();
            counted.total += 1;
            if state.is_held() {
                counted.confirmed += 1;
                *counted.confirmed_by_path.entry(way).or_default() += 1;
            }
            let (protocol, port) = key.service();
            let services = services.get(usize::from(key.vipa().0)).map(Vec::as_slice).unwrap_or_default();
            let service = services.iter().find(|(of, ports)| *of == protocol && ports.contains(port));
            *counted.by_service.entry((service.copied(), way)).or_default() += 1;
        });
        Self { vipas, nothing: Counted::default() }
    }

    pub(crate) fn of(&self, vipa: usize) -> &Counted {
        self.vipas.get(&vipa_id(vipa)).unwrap_or(&self.nothing)
    }
}

impl Counted {
    /// By the target's address.
    pub(crate) fn by_target(&self, ways: &Paths) -> BTreeMap<IpAddr, u64> {
        self.sum(ways, |_| true)
    }

    /// Those that the target has confirmed, by its address.
    pub(crate) fn confirmed_by_target(&self, ways: &Paths) -> BTreeMap<IpAddr, u64> {
        let mut counts = BTreeMap::new();
        for (path, count) in &self.confirmed_by_path {
            if let Some(target) = ways.address(*path) {
                *counts.entry(target).or_default() += count;
            }
        }
        counts
    }

    /// Those of one service, by the target's address.
    pub(crate) fn of_service(&self, service: &Service, ways: &Paths) -> BTreeMap<IpAddr, u64> {
        self.sum(ways, |of| of == Some((service.protocol, service.ports)))
    }

    /// Those that go one of these ways, by the target's address.
    pub(crate) fn by_way(&self, ways: &Paths, wanted: impl Fn(TargetId) -> bool) -> BTreeMap<IpAddr, u64> {
        self.sum_where(ways, |_, way| wanted(way))
    }

    fn sum(&self, ways: &Paths, wanted: impl Fn(Option<(Protocol, PortRange)>) -> bool) -> BTreeMap<IpAddr, u64> {
        self.sum_where(ways, |service, _| wanted(service))
    }

    fn sum_where(
        &self,
        ways: &Paths,
        wanted: impl Fn(Option<(Protocol, PortRange)>, TargetId) -> bool,
    ) -> BTreeMap<IpAddr, u64> {
        let mut counts = BTreeMap::new();
        for ((_, way), count) in self.by_service.iter().filter(|((service, way), _)| wanted(*service, *way)) {
            if let Some(target) = ways.address(*way) {
                *counts.entry(target).or_default() += count;
            }
        }
        counts
    }
}

/// Who waits for a count.
pub(crate) struct ConnectionCounters {
    counted: mpsc::Sender<Result<ConnectionCounts, CountFailed>>,
    /// Whom the walk under way is for; none: there is none.
    served: Vec<Then>,
    /// Who came since it began. Clients of the admin socket and this router itself: bounded by both.
    waiting: Vec<Then>,
}

impl ConnectionCounters {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Result<ConnectionCounts, CountFailed>>) {
        let (counted, counts) = mpsc::channel(1);
        (Self { counted, served: Vec::new(), waiting: Vec::new() }, counts)
    }
}

impl Control {
    /// Counts, and then does this.
    pub(crate) fn count_then(&mut self, then: impl FnOnce(&mut Self, Counting<'_>) + 'static) {
        self.connection_counters.waiting.push(Box::new(then));
        self.count_for_those_who_wait();
    }

    /// Counts, and then answers a client.
    pub(crate) fn count_and_answer(
        &mut self,
        reply: Reply,
        answer: impl FnOnce(&Self, &ConnectionCounts) -> Answer + 'static,
    ) {
        self.count_then(move |control, counting| reply.end(answer_by(counting, |counts| answer(control, counts))));
    }

    pub(crate) fn counted(&mut self, counting: Counting<'_>) {
        for then in std::mem::take(&mut self.connection_counters.served) {
            then(self, counting);
        }
        self.count_for_those_who_wait();
    }

    fn count_for_those_who_wait(&mut self) {
        if !self.connection_counters.served.is_empty() || self.connection_counters.waiting.is_empty() {
            return;
        }
        self.connection_counters.served = std::mem::take(&mut self.connection_counters.waiting);
        let ports = |services: &[Service]| services.iter().map(|service| (service.protocol, service.ports)).collect();
        let services: Vec<Ports> = self.routing.vipas.iter().map(|vipa| ports(&vipa.services)).collect();
        let (flows, counted) = (Arc::clone(&self.flows), self.connection_counters.counted.clone());
        let hold = self.reclaim.tasks.hold();
        walk_beside(counted, move || {
            let _hold = hold;
            ConnectionCounts::take(&flows, &services)
        });
    }
}

/// Walks beside the loop and tells it the end, a panic too.
fn walk_beside(
    counted: mpsc::Sender<Result<ConnectionCounts, CountFailed>>,
    walk: impl FnOnce() -> ConnectionCounts + Send + 'static,
) {
    let walk = tokio::task::spawn_blocking(walk);
    tokio::spawn(async move {
        let counts = walk.await.map_err(|error| {
            tracing::error!(%error, "a walk of the connection table has failed");
            CountFailed
        });
        // The loop may have ended meanwhile.
        let _ = counted.send(counts).await;
    });
}

fn answer_by(counting: Counting<'_>, answer: impl FnOnce(&ConnectionCounts) -> Answer) -> Answer {
    match counting {
        Ok(counts) => answer(counts),
        Err(failed) => Answer::Error(failed.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_flow::{HashSeed, Tick};
    use vipa_handoff::AnyKey;
    use vipa_model::{Connection, Delivery};

    use super::*;
    use crate::network::paths::TargetAndPath;

    #[tokio::test]
    async fn who_waits_for_a_walk_that_panics_is_told_and_the_next_walk_counts() {
        let (connection_counters, mut counts) = ConnectionCounters::new();
        walk_beside(connection_counters.counted.clone(), || panic!("a walk's, for this test"));
        let failed = counts.recv().await.unwrap().unwrap_err();
        let Answer::Error(sentence) = answer_by(Err(&failed), |_| panic!("there is no counts")) else {
            panic!("no error");
        };
        assert_eq!(sentence, "the connections of the table could not be counted; vipad's log says why");
        walk_beside(connection_counters.counted.clone(), ConnectionCounts::default);
        let counts = counts.recv().await.unwrap().unwrap();
        let progress = vipa_protocol::admin::Said { sentence: "counted".into() };
        assert_eq!(answer_by(Ok(&counts), |_| Answer::Done(progress.clone())), Answer::Done(progress));
    }

    #[test]
    fn connections_are_counted_by_vipa_service_and_target_in_one_walk() {
        let flows = Flows::new(100, 1, HashSeed::new([7; 4])).unwrap();
        let target = |last| IpAddr::V4(Ipv4Addr::new(198, 51, 100, last));
        let mut ways = Paths::default();
        let mut way = |last| {
            let address = target(last);
            ways.intern(TargetAndPath { address, path: Delivery::default().path_to(address) }).unwrap()
        };
        let (one, two) = (way(21), way(22));
        let mut client = 4000;
        let mut admit = |vipa: u16, port, way, state| {
            client += 1;
            let connection = Connection { protocol: Protocol::Tcp, client: ([203, 0, 113, 4], client).into(), port };
            let key = AnyKey::of(VipaId(vipa), Ipv4Addr::new(192, 0, 2, 10).into(), &connection).unwrap();
            let _ = flows.confirm(&key, way, state, Tick(0));
        };
        for (vipa, port, way, state) in [
            (0, 80, one, FlowState::Confirmed),
            (0, 80, two, FlowState::Open),
            (0, 443, two, FlowState::Confirmed),
            (0, 9, two, FlowState::Closing),
            (3, 80, one, FlowState::Confirmed),
        ] {
            admit(vipa, port, way, state);
        }
        let web = |port| (Protocol::Tcp, PortRange::one(port));
        let counts = ConnectionCounts::take(&flows, &[vec![web(80), web(443)]]);
        let counted = counts.of(0);
        assert_eq!((counted.total, counted.confirmed), (4, 2));
        assert_eq!(counted.by_target(&ways), [(target(21), 1), (target(22), 3)].into());
        assert_eq!(counted.confirmed_by_target(&ways), [(target(21), 1), (target(22), 1)].into());
        assert_eq!(counted.sum(&ways, |service| service == Some(web(80))), [(target(21), 1), (target(22), 1)].into());
        assert_eq!(counted.sum(&ways, |service| service.is_none()), [(target(22), 1)].into());
        assert_eq!((counts.of(1).total, counts.of(3).total), (0, 1));
    }
}
