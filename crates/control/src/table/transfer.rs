//! What an owner that consents leaves to its successor: its connection table, told by a thread beside the loop.
//!
//! First come the connections that no target has confirmed: nobody else can tell of them, the successor waits for them, and
//! even in a table of millions they are few. The confirmed ones follow in a series of their own, which nobody waits for:
//! their targets tell the successor of them too, unless their agents are away. With them go the ended ones: late segments of theirs go
//! on to their targets.
//!
//! After its consent the owner goes on admitting what still comes to it. When it yields, it tells at once what has changed
//! since. The unconfirmed ones are told again until it admits no more: a target without an agent tells nobody, and one with an
//! agent may be slow.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use vipa_flow::Tick;
use vipa_handoff::{AnyKey, Flows};
use vipa_model::{EntryState, Epoch, NodeName, TargetId, VipaId};
use vipa_protocol::{Entry, Message, Part, Table};
use vipa_transport::Sender;

use crate::table::identifiers::TaskHold;

/// Connections in one message.
const TABLE_PART: usize = 2048;
/// A successor that takes nothing for so long is told no more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two walks through the table.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// When it is told again, after its consent; the last time is when the owner of old admits no more.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(2)];

/// A VIPA's table, and whom it goes to.
#[derive(Debug)]
pub(crate) struct TableTransfer {
    pub(crate) to: NodeName,
    pub(crate) vipa: IpAddr,
    pub(crate) id: VipaId,
    pub(crate) epoch: Epoch,
    /// Whose way each is, by `TargetId`.
    pub(crate) targets: Vec<Option<IpAddr>>,
    /// The ids stay what they are.
    pub(crate) _hold: TaskHold,
    /// The successor was sent the table before.
    pub(crate) changed: Option<Changed>,
}

/// Which confirmed connections are told to a successor that has the table already: those written since then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed {
    pub(crate) since: Tick,
    pub(crate) now: Tick,
}

impl Changed {
    fn names(self, flows: &Flows, key: &AnyKey) -> bool {
        /// Ticks that may have begun since `now`.
        const LATER: u32 = 4;
        let Self { since, now } = self;
        let span = now.0.wrapping_sub(since.0).saturating_add(LATER);
        flows.lookup(key).is_some_and(|hit| u32::from(hit.silence(Tick(now.0.wrapping_add(LATER)))) <= span)
    }
}

/// The thread that tells. It ends with this.
#[derive(Debug)]
pub(crate) struct TableTransfers(mpsc::Sender<TableTransfer>);

impl TableTransfers {
    pub(crate) fn start(flows: Arc<Flows>, links: Sender) -> Self {
        let (transfers, left) = mpsc::channel::<TableTransfer>();
        std::thread::spawn(move || {
            let mut send = |to: &NodeName, table| links.send_in_turn(to, &Message::Table(table), PATIENCE);
            let (mut again, mut pace) = (Again::default(), Pace::new());
            loop {
                let event = match again.next() {
                    Some(due) => left.recv_timeout(due.saturating_duration_since(Instant::now())),
                    None => left.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match event {
                    // Whoever stops consents for all its VIPAs at once, and thousands are taken back within moments: one walk
                    // serves all that have come meanwhile.
                    Ok(first) => {
                        pace.wait();
                        let all = std::iter::once(first).chain(left.try_iter());
                        let (changes, all): (Vec<_>, Vec<_>) = all.partition(|transfer| transfer.changed.is_some());
                        tell(&flows, &changes, Extent::Changed, &mut send);
                        tell(&flows, &all, Extent::Whole, &mut send);
                        again.add(all, Instant::now());
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        pace.wait();
                        tell(&flows, again.due(Instant::now()), Extent::Unconfirmed, &mut send);
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                pace.walked();
            }
        });
        Self(transfers)
    }

    /// At most two for each consent, and those are seconds apart.
    pub(crate) fn leave(&self, transfer: TableTransfer) {
        // The thread ends only with this sender.
        let _ = self.0.send(transfer);
    }
}

/// Walks take half of the thread's time at most, however many VIPAs are told of one after the other.
#[derive(Debug)]
struct Pace {
    /// Since when the thread has worked, or waited for work.
    began: Instant,
    /// When the next walk may begin.
    next: Instant,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { began: now, next: now }
    }

    fn wait(&mut self) {
        std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.began = Instant::now();
    }

    fn walked(&mut self) {
        let now = Instant::now();
        self.next = now + (now - self.began).min(LONGEST_PAUSE);
    }
}

/// How much of a table is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All of it, and where it ends.
    Whole,
    /// What there is that no target has confirmed.
    Unconfirmed,
    /// That, and what has changed since the successor was sent the table.
    Changed,
}

/// What is to be told again. Of one VIPA the last consent counts.
#[derive(Debug, Default)]
struct Again(HashMap<VipaId, Repeats>);

/// Since when, and how often it has been told again.
#[derive(Debug)]
struct Repeats {
    transfer: TableTransfer,
    since: Instant,
    times: usize,
}

impl Repeats {
    /// `None` when it is over.
    fn next(&self) -> Option<Instant> {
        AGAIN.get(self.times).map(|after| self.since + *after)
    }

    /// Counts one more time.
    fn tell(&mut self) -> &TableTransfer {
        self.times += 1;
        &self.transfer
    }
}

impl Again {
    fn add(&mut self, transfers: Vec<TableTransfer>, now: Instant) {
        self.0.extend(transfers.into_iter().map(|transfer| (transfer.id, Repeats { transfer, since: now, times: 0 })));
    }

    /// When the next one is due; what is over is forgotten.
    fn next(&mut self) -> Option<Instant> {
        self.0.retain(|_, repeats| repeats.next().is_some());
        self.0.values().filter_map(Repeats::next).min()
    }

    /// Those whose time has come.
    fn due(&mut self, now: Instant) -> Vec<&TableTransfer> {
        let due = self.0.values_mut().filter(|repeats| repeats.next().is_some_and(|due| due <= now));
        due.map(Repeats::tell).collect()
    }
}

/// Tells of all of them, in a walk for what is unconfirmed and one for the rest. `send` says whether the message will go.
fn tell<'a>(
    flows: &Flows,
    transfers: impl IntoIterator<Item = &'a TableTransfer>,
    extent: Extent,
    send: &mut dyn FnMut(&NodeName, Table) -> bool,
) {
    // Of one VIPA the last consent counts.
    let mut series: HashMap<VipaId, Series> =
        transfers.into_iter().map(|transfer| (transfer.id, Series::new(transfer))).collect();
    if series.is_empty() {
        return;
    }
    // A successor that did not take one message in time is not waited for again.
    let mut deaf = BTreeSet::new();
    let mut send = |to: &NodeName, table: Table| {
        if extent != Extent::Whole && table.entries.is_empty() {
            return;
        }
        if !deaf.contains(to) && !send(to, table) {
            tracing::warn!(successor = %to, "the successor does not take this router's connections");
            deaf.insert(to.clone());
        }
    };
    // Of the first walk: what a target confirms between the walks is not told again.
    let mut told = HashSet::new();
    for reported in [false, true] {
        let mut others = false;
        let wanted: HashSet<VipaId> = series.keys().copied().collect();
        flows.export_where(&|vipa| wanted.contains(&vipa), &mut |key, way, state| {
            let state = state.told();
            if matches!(state, EntryState::Held | EntryState::Ended) != reported {
                others = true;
            } else if let Some(series) = series.get_mut(&key.vipa()).filter(|_| !told.contains(&key)) {
                if reported && series.transfer.changed.is_some_and(|changed| !changed.names(flows, &key)) {
                    return;
                }
                series.add(&key, way, state, &mut send);
                if !reported {
                    told.insert(key);
                }
            }
        });
        series.values_mut().for_each(|series| series.finish(&mut send));
        if !others || extent == Extent::Unconfirmed {
            return;
        }
    }
}

/// One VIPA's messages under way.
struct Series<'a> {
    transfer: &'a TableTransfer,
    entries: Vec<Entry>,
    begun: bool,
}

impl<'a> Series<'a> {
    fn new(transfer: &'a TableTransfer) -> Self {
        Self { transfer, entries: Vec::new(), begun: false }
    }

    fn add(&mut self, key: &AnyKey, way: TargetId, state: EntryState, send: &mut dyn FnMut(&NodeName, Table)) {
        let Some(target) = self.transfer.targets.get(usize::from(way.0)).copied().flatten() else { return };
        if self.entries.len() == TABLE_PART {
            let part = if self.begun { Part::Middle } else { Part::First };
            self.begun = true;
            self.send(part, send);
        }
        self.entries.push(Entry { connection: key.connection(), target, state });
    }

    /// Also of no connection at all there is one message, so that its end is known.
    fn finish(&mut self, send: &mut dyn FnMut(&NodeName, Table)) {
        let part = if std::mem::take(&mut self.begun) { Part::Last } else { Part::Only };
        self.send(part, send);
    }

    fn send(&mut self, part: Part, send: &mut dyn FnMut(&NodeName, Table)) {
        let entries = std::mem::take(&mut self.entries);
        let TableTransfer { to, vipa, epoch, id: _, targets: _, changed: _, _hold: _ } = self.transfer;
        send(to, Table { vipa: *vipa, epoch: *epoch, entries, part });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_flow::{FlowState, HashSeed};
    use vipa_model::{Connection, Protocol};

    use super::*;
    use crate::table::identifiers::Tasks;

    const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));

    fn vipa(number: u16) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, 10 + number as u8).into()
    }

    /// So many connections of each VIPA: unconfirmed ones and confirmed ones.
    fn flows(vipas: &[(u32, u32)]) -> Flows {
        let flows = Flows::new(40_000, 1, HashSeed::new([7; 4])).unwrap();
        for (number, (open, confirmed)) in (0..).zip(vipas) {
            for client in 0..open + confirmed {
                let source = (Ipv4Addr::from_bits(0x0a00_0000 + client), 4000).into();
                let connection = Connection { protocol: Protocol::Tcp, client: source, port: 80 };
                let key = AnyKey::of(VipaId(number), vipa(number), &connection).unwrap();
                let state = if client < *open { FlowState::Open } else { FlowState::Confirmed };
                let _ = flows.confirm(&key, TargetId(0), state, Tick(0));
            }
        }
        flows
    }

    fn transfer(number: u16, to: &str) -> TableTransfer {
        let to = to.parse().unwrap();
        TableTransfer {
            to,
            vipa: vipa(number),
            id: VipaId(number),
            epoch: Epoch(7),
            targets: vec![Some(TARGET)],
            changed: None,
            _hold: Tasks::default().hold(),
        }
    }

    /// What is told of each VIPA: to whom, how much, which part.
    fn told(
        flows: &Flows,
        transfers: &[TableTransfer],
        takes: impl Fn(&str) -> bool,
    ) -> Vec<(IpAddr, String, usize, Part)> {
        let mut told = Vec::new();
        tell(flows, transfers, Extent::Whole, &mut |to, table| {
            assert!(table.entries.iter().all(|entry| entry.target == TARGET));
            told.push((table.vipa, to.to_string(), table.entries.len(), table.part));
            takes(to.as_str())
        });
        told
    }

    #[test]
    fn what_no_target_has_confirmed_goes_first_and_its_end_is_marked() {
        let flows = flows(&[(TABLE_PART as u32 + 1, 2 * TABLE_PART as u32 + 5)]);
        let sent: Vec<_> =
            told(&flows, &[transfer(0, "r1")], |_| true).into_iter().map(|told| (told.2, told.3)).collect();
        let expected = [
            (TABLE_PART, Part::First),
            (1, Part::Last),
            (TABLE_PART, Part::First),
            (TABLE_PART, Part::Middle),
            (5, Part::Last),
        ];
        assert_eq!(sent, expected);
    }

    #[test]
    fn who_has_the_table_is_told_what_has_changed_since() {
        let flows = Flows::new(100, 1, HashSeed::new([7; 4])).unwrap();
        let told = [
            (FlowState::Open, 10),
            (FlowState::Confirmed, 10),
            (FlowState::Confirmed, 100),
            (FlowState::Confirmed, 104),
        ];
        for (client, (state, tick)) in (0..).zip(told) {
            let source = (Ipv4Addr::from_bits(0x0a00_0000 + client), 4000).into();
            let connection = Connection { protocol: Protocol::Tcp, client: source, port: 80 };
            let _ = flows.admit(&AnyKey::of(VipaId(0), vipa(0), &connection).unwrap(), TargetId(0), state, Tick(tick));
        }
        let changed = Some(Changed { since: Tick(99), now: Tick(103) });
        let mut named = Vec::new();
        tell(&flows, &[TableTransfer { changed, ..transfer(0, "r1") }], Extent::Changed, &mut |_, table| {
            named.extend(table.entries.iter().map(|entry| entry.connection.client.ip()));
            true
        });
        named.sort_unstable();
        assert_eq!(named, [0, 2, 3].map(|client| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + client))));
    }

    #[test]
    fn what_is_confirmed_between_the_walks_is_told_once() {
        let flows = flows(&[(3, 2)]);
        let mut named = Vec::new();
        tell(&flows, &[transfer(0, "r1")], Extent::Whole, &mut |_, table| {
            for Entry { connection, .. } in &table.entries {
                let key = AnyKey::of(VipaId(0), vipa(0), connection).unwrap();
                let _ = flows.confirm(&key, TargetId(0), FlowState::Confirmed, Tick(0));
            }
            named.extend(table.entries.iter().map(|entry| entry.connection));
            true
        });
        let different: BTreeSet<_> = named.iter().copied().collect();
        assert_eq!((named.len(), different.len()), (5, 5));
    }

    #[test]
    fn of_an_empty_table_the_end_is_told() {
        assert_eq!(told(&flows(&[]), &[transfer(0, "r1")], |_| true), [(vipa(0), "r1".into(), 0, Part::Only)]);
    }

    #[test]
    fn every_entry_is_told_with_its_state_but_what_has_ended() {
        let flows = Flows::new(100, 1, HashSeed::new([7; 4])).unwrap();
        for (client, state) in (0..).zip(FlowState::ALL) {
            let source = (Ipv4Addr::from_bits(0x0a00_0000 + client), 4000).into();
            let connection = Connection { protocol: Protocol::Tcp, client: source, port: 80 };
            let _ = flows.admit(&AnyKey::of(VipaId(0), vipa(0), &connection).unwrap(), TargetId(0), state, Tick(0));
        }
        let mut states = Vec::new();
        tell(&flows, &[transfer(0, "r1")], Extent::Whole, &mut |_, table| {
            states.extend(table.entries.iter().map(|entry| entry.state));
            true
        });
        states.sort_unstable();
        use EntryState::{Closing, Ended, HalfOpen, Held, Open, Udp};
        assert_eq!(states, [HalfOpen, Open, Held, Held, Closing, Ended, Udp]);
    }

    #[test]
    fn what_is_unconfirmed_is_told_again_until_nothing_more_is_admitted() {
        let flows = flows(&[(3, 2), (0, 2)]);
        let (mut again, start) = (Again::default(), Instant::now());
        again.add(vec![transfer(0, "r1"), transfer(1, "r1"), transfer(0, "r2")], start);
        for after in AGAIN {
            assert_eq!(again.next(), Some(start + after));
            assert!(again.due(start + after - Duration::from_millis(1)).is_empty());
            let mut told = Vec::new();
            tell(&flows, again.due(start + after), Extent::Unconfirmed, &mut |to, table| {
                told.push((to.to_string(), table.vipa, table.entries.len()));
                true
            });
            assert_eq!(told, [("r2".into(), vipa(0), 3)]);
        }
        assert_eq!(again.next(), None);
        assert!(again.0.is_empty());
    }

    #[test]
    fn several_are_told_in_one_walk_each_to_whom_it_is_left_last() {
        let flows = flows(&[(3, 0), (4, 0), (5, 0)]);
        let mut sent = told(&flows, &[transfer(0, "r1"), transfer(1, "r1"), transfer(0, "r2")], |_| true);
        sent.sort_by_key(|told| told.0);
        assert_eq!(sent, [(vipa(0), "r2".into(), 3, Part::Only), (vipa(1), "r1".into(), 4, Part::Only)]);
    }

    #[test]
    fn a_successor_that_takes_nothing_is_told_no_more() {
        let flows = flows(&[(3 * TABLE_PART as u32, 100), (2, 1)]);
        let sent = told(&flows, &[transfer(0, "r1"), transfer(1, "r2")], |to| to == "r2");
        assert_eq!(sent.iter().filter(|told| told.1 == "r1").count(), 1);
        assert_eq!(sent.iter().filter(|told| told.1 == "r2").map(|told| told.2).collect::<Vec<_>>(), [2, 1]);
    }
}
