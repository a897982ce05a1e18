//! What a target had reported and its snapshot no longer names has ended; it is sought in the table a stretch at a time,
//! because walking a table of millions takes longer than a lease may last.
//!
//! ```text
//!   first part ──► names collected ──► last part ──► the table, stretch by stretch ──► done
//!                                                     │ held by this target, not named
//!                                                     └──► ended
//! ```
//! Entries that the target never reported are younger than its snapshot, or will age.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use vipa_flow::{Cursor, Tick};
use vipa_handoff::{AnyKey, Flows};
use vipa_model::VipaId;

use crate::{network::paths::Paths, table::reports::Reporter};

/// One snapshot's.
#[derive(Debug, Default)]
pub(crate) struct StaleSweep {
    is_ipv6: bool,
    /// What the snapshot has named, and what its target has confirmed since.
    named: HashSet<AnyKey>,
    is_complete: bool,
    cursor: Cursor,
}

/// By VIPA and target; a snapshot that comes while another is under way or being swept takes its place.
#[derive(Debug, Default)]
pub(crate) struct StaleSweeps(BTreeMap<(VipaId, IpAddr), StaleSweep>);

impl StaleSweep {
    pub(crate) fn name(&mut self, key: AnyKey) {
        self.named.insert(key);
    }

    /// The snapshot has named everything.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }
}

impl StaleSweeps {
    pub(crate) fn begin(&mut self, reporter: &Reporter<'_>) -> Option<&mut StaleSweep> {
        let sweep = StaleSweep { is_ipv6: reporter.vipa_address.is_ipv6(), ..StaleSweep::default() };
        let place = (reporter.vipa, reporter.target);
        self.0.insert(place, sweep);
        self.0.get_mut(&place)
    }

    pub(crate) fn of(&mut self, vipa: VipaId, target: IpAddr) -> Option<&mut StaleSweep> {
        self.0.get_mut(&(vipa, target))
    }

    /// Nothing is to be sought.
    pub(crate) fn forget(&mut self, vipa: VipaId, target: IpAddr) -> Option<&mut StaleSweep> {
        self.0.remove(&(vipa, target));
        None
    }

    /// The VIPA is this router's no more.
    pub(crate) fn forget_vipa(&mut self, vipa: VipaId) {
        self.0.retain(|(of, _), _| *of != vipa);
    }

    /// Looks through the next `buckets` for one of them: whose VIPA it was, and how many connections have ended.
    /// `None`: there is nothing to do.
    pub(crate) fn go_on(&mut self, flows: &Flows, ways: &Paths, buckets: usize, now: Tick) -> Option<(VipaId, u64)> {
        let (&(vipa, target), sweep) = self.0.iter_mut().find(|(_, sweep)| sweep.is_complete)?;
        let StaleSweep { is_ipv6, named, cursor, .. } = sweep;
        let holders = ways.to(target);
        let mut swept = 0;
        let finished = flows.walk(*is_ipv6, cursor, buckets, &mut |key, holder, state| {
            let is_gone = key.vipa() == vipa && state.is_held() && holders.contains(&holder) && !named.contains(&key);
            swept += u64::from(is_gone && flows.report_end(&key, |way| holders.contains(&way), now));
        });
        if finished {
            self.0.remove(&(vipa, target));
        }
        Some((vipa, swept))
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use vipa_flow::{FlowState, HashSeed};
    use vipa_model::{Connection, ConnectionState, Protocol, TargetId};
    use vipa_protocol::{Change, Part, Record, Run};

    use super::*;
    use crate::{
        network::paths::Lists,
        table::reports::{Reports, Taken},
    };

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

    struct Bench {
        flows: Arc<Flows>,
        ways: Paths,
        reports: Reports,
    }

    impl Bench {
        fn new() -> Self {
            let flows = Arc::new(Flows::new(200_000, 1, HashSeed::new([7; 4])).unwrap());
            Self { reports: Reports::new(Arc::clone(&flows)), flows, ways: Paths::default() }
        }

        fn report(&mut self, target: u8, run: &Run) -> Taken {
            let reporter = Reporter {
                vipa: VipaId(0),
                vipa_address: VIPA,
                lists: Lists { services: &[], learned: &[] },
                target: Ipv4Addr::new(198, 51, 100, target).into(),
                ways: &mut self.ways,
                now: Tick(0),
                is_listed: &|_, _| true,
                reserve_percent: 0,
            };
            self.reports.install(reporter, run)
        }

        fn snapshot(&mut self, target: u8, part: Part, clients: std::ops::Range<u32>) -> Taken {
            let connections = clients.map(|client| (connection(client), ConnectionState::Established)).collect();
            self.report(target, &Run::Snapshot { part, connections })
        }

        /// To the end; how many were taken out, in how many turns.
        fn sweep(&mut self) -> (u64, usize) {
            let (mut swept, mut turns) = (0, 0);
            while let Some((_, taken)) = self.reports.sweep(&self.ways, Tick(0)) {
                swept += taken.swept;
                turns += 1;
                assert!(turns < 1000);
            }
            (swept, turns)
        }

        fn knows(&self, client: u32) -> bool {
            self.flows.lookup(&key(client)).is_some_and(|hit| hit.state != FlowState::Ended)
        }
    }

    fn connection(client: u32) -> Connection {
        let client = (Ipv4Addr::from_bits(0x0a00_0000 + client), 4000).into();
        Connection { protocol: Protocol::Tcp, client, port: 80 }
    }

    fn key(client: u32) -> AnyKey {
        AnyKey::of(VipaId(0), VIPA, &connection(client)).unwrap()
    }

    fn tail(client: u32, change: Change) -> Run {
        Run::Tail { after: 0, records: vec![Record { connection: connection(client), change }] }
    }

    #[test]
    fn a_first_report_leaves_nothing_to_seek() {
        let mut bench = Bench::new();
        bench.snapshot(21, Part::First, 0..10);
        bench.snapshot(21, Part::Last, 10..20);
        assert_eq!(bench.sweep(), (0, 0));
    }

    #[test]
    fn what_a_target_confirmed_and_names_no_longer_is_gone_and_nothing_else() {
        let mut bench = Bench::new();
        bench.snapshot(21, Part::Only, 0..100);
        bench.snapshot(22, Part::Only, 100..200);
        // Admitted and not yet confirmed by anybody.
        let _ = bench.flows.admit(&key(500), TargetId(0), FlowState::Open, Tick(0));
        bench.snapshot(21, Part::First, 0..40);
        assert_eq!(bench.sweep(), (0, 0), "half a snapshot says nothing of the rest");
        bench.snapshot(21, Part::Last, 40..60);
        let (swept, turns) = bench.sweep();
        assert_eq!(swept, 40);
        assert!(turns > 1, "a table this large is looked through in several turns");
        assert!((0..60).chain(100..200).chain([500]).all(|client| bench.knows(client)));
        assert!((60..100).all(|client| !bench.knows(client)));
    }

    #[test]
    fn what_is_confirmed_while_the_table_is_looked_through_stays() {
        let mut bench = Bench::new();
        bench.snapshot(21, Part::Only, 0..100);
        bench.snapshot(21, Part::Only, 0..50);
        bench.report(21, &tail(99, Change::Opened(ConnectionState::Established)));
        bench.report(21, &tail(7, Change::Closed));
        assert_eq!(bench.sweep().0, 49);
        assert!(bench.knows(99) && !bench.knows(7));
    }

    #[test]
    fn a_snapshot_that_begins_anew_forgets_what_the_first_one_named() {
        let mut bench = Bench::new();
        bench.snapshot(21, Part::Only, 0..100);
        bench.snapshot(21, Part::First, 0..50);
        bench.snapshot(21, Part::First, 50..60);
        bench.snapshot(21, Part::Last, 60..70);
        assert_eq!(bench.sweep().0, 80);
    }
}
