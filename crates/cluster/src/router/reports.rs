//! A target's reports of one VIPA.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Moment, Protocol};
use vipa_protocol::{Connections, Part, Position, Run, Standing};

/// A takeback waits for a silent target one span; for one that reports without coming to an end, this many spans.
const MOST_SPANS: u32 = 2;
/// A target that links again within this time counts as the one that was waited for.
const SOON: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TargetView {
    pub(super) address: IpAddr,
    pub(super) linked: bool,
    /// Since when it is waited for: since it linked, on the first of several links that ended before it had answered.
    awaited_since: Moment,
    /// When it last sent a report, or linked.
    heard: Moment,
    /// How far its log has been read. Kept when the link ends.
    pub(super) seen: Option<Position>,
    /// The request on this link.
    pub(super) asked: Option<(Epoch, Standing)>,
    /// The last `Associate` that it answered in full on this link.
    pub(super) answered: Option<Epoch>,
    /// The ports it listens on; unknown until it reports them on this link.
    pub(super) listening: Option<Vec<(Protocol, u16)>>,
    /// A snapshot is being received on this link, and leads to this position.
    collecting: Option<Position>,
    /// The last value of [`is_warm`](Self::is_warm) that the shell was given; `None` before the first.
    reported_warm: Option<bool>,
}

/// What a message of the log means to its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogUpdate {
    /// New: to be installed; and the number of connections or records in it.
    Run(Run, u64),
    /// Known already.
    Nothing,
    /// Something before it is missing: ask again.
    Gap,
}

impl TargetView {
    pub(super) fn new(address: IpAddr) -> Self {
        Self {
            address,
            linked: false,
            awaited_since: Moment::ZERO,
            heard: Moment::ZERO,
            seen: None,
            asked: None,
            answered: None,
            listening: None,
            collecting: None,
            reported_warm: None,
        }
    }

    pub(super) fn link(&mut self, address: IpAddr, now: Moment) {
        let (seen, reported_warm) = (self.seen, self.reported_warm);
        let is_awaited = self.awaited_since != Moment::ZERO && now.since(self.heard) < SOON;
        let awaited_since = if is_awaited { self.awaited_since } else { now };
        *self = Self { linked: true, awaited_since, heard: now, seen, reported_warm, ..Self::new(address) };
    }

    pub(super) fn unlink(&mut self) {
        let awaited_since = if self.is_warm() { Moment::ZERO } else { self.awaited_since };
        let (seen, reported_warm, heard) = (self.seen, self.reported_warm, self.heard);
        *self = Self { awaited_since, heard, seen, reported_warm, ..Self::new(self.address) };
    }

    /// The position from which its log is still to be sent. What is under way on this link comes before any answer to a
    /// request now.
    pub(super) fn known(&self) -> Option<Position> {
        self.collecting.or(self.seen)
    }

    /// Whether everything it holds is known: it answered on this link, and its log has been followed since.
    pub(super) fn is_warm(&self) -> bool {
        self.linked && self.answered.is_some() && self.listening.is_some()
    }

    /// Whether it is linked and a router that needs everything must still wait for it. Not if it has sent no report for
    /// `patience`, nor if it has not come to the end of its reports for twice that span, on one link or on several.
    pub(super) fn is_awaited(&self, now: Moment, patience: Duration) -> bool {
        let is_late = now.since(self.awaited_since) >= patience * MOST_SPANS;
        self.linked && !self.is_warm() && !is_late && !self.is_silent(now, patience)
    }

    /// Whether it has not answered on this link and has sent no report for `patience`.
    pub(super) fn is_silent(&self, now: Moment, patience: Duration) -> bool {
        !self.is_warm() && now.since(self.heard) >= patience
    }

    /// The value of `is_warm`, if the shell has not been given it.
    pub(super) fn news_of_warmth(&mut self) -> Option<bool> {
        let warm = self.is_warm();
        (self.reported_warm.replace(warm) != Some(warm)).then_some(warm)
    }

    pub(super) fn has_answered(&self, epoch: Epoch) -> bool {
        self.linked && self.answered == Some(epoch) && self.listening.is_some()
    }

    /// Reads one message of the log, whatever came before it.
    pub(super) fn take(&mut self, message: Connections, now: Moment) -> LogUpdate {
        self.heard = now;
        let Connections { vipa: _, run, upto, answers } = message;
        let taken = match run {
            Run::Tail { after, records } => {
                let seen = self.seen.filter(|seen| seen.incarnation == upto.incarnation);
                let Some(seen) = seen.filter(|seen| seen.sequence >= after) else { return LogUpdate::Gap };
                let known = usize::try_from(seen.sequence - after).unwrap_or(usize::MAX).min(records.len());
                let fresh = records[known..].to_vec();
                self.seen = Some(seen.max(upto));
                match fresh.len() as u64 {
                    0 => LogUpdate::Nothing,
                    count => LogUpdate::Run(Run::Tail { after: seen.sequence, records: fresh }, count),
                }
            }
            Run::Snapshot { part, connections } => {
                let starts = matches!(part, Part::Only | Part::First);
                if !starts && self.collecting.is_none() {
                    return LogUpdate::Gap;
                }
                // Half a snapshot is no position: if the link ends before the rest has come, everything is requested
                // again.
                (self.collecting, self.seen) = match part {
                    Part::First | Part::Middle => (Some(upto), None),
                    Part::Only | Part::Last => (None, Some(upto)),
                };
                let count = connections.len() as u64;
                LogUpdate::Run(Run::Snapshot { part, connections }, count)
            }
        };
        if answers.is_some() {
            self.answered = answers;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_model::{Connection, ConnectionState, Incarnation};
    use vipa_protocol::{Change, Record};

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));

    const NOW: Moment = Moment(1_000_000_000);

    fn at(sequence: u64) -> Position {
        Position { incarnation: Incarnation(3), sequence }
    }

    fn connection() -> Connection {
        Connection { protocol: Protocol::Tcp, client: ([203, 0, 113, 4], 4000).into(), port: 80 }
    }

    fn part(part: Part, answers: Option<Epoch>) -> Connections {
        let run = Run::Snapshot { part, connections: vec![(connection(), ConnectionState::Established)] };
        Connections { vipa: ADDRESS, run, upto: at(7), answers }
    }

    fn tail(after: u64, records: usize, answers: Option<Epoch>) -> Connections {
        let record = Record { connection: connection(), change: Change::Closed };
        let run = Run::Tail { after, records: vec![record; records] };
        Connections { vipa: ADDRESS, run, upto: at(after + records as u64), answers }
    }

    #[test]
    fn who_asks_again_while_a_snapshot_is_under_way_is_not_sent_another() {
        let mut view = TargetView::new(ADDRESS);
        view.link(ADDRESS, NOW);
        assert_eq!(view.known(), None);
        view.take(part(Part::First, None), NOW);
        // The epoch changes here: the target is asked again, and has queued the rest of the snapshot before.
        assert_eq!(view.known(), Some(at(7)));
        view.take(part(Part::Middle, None), NOW);
        assert!(!view.has_answered(Epoch(2)));
        view.take(part(Part::Last, Some(Epoch(2))), NOW);
        assert_eq!((view.known(), view.answered), (Some(at(7)), Some(Epoch(2))));
        assert!(matches!(view.take(tail(7, 1, Some(Epoch(3))), NOW), LogUpdate::Run(Run::Tail { after: 7, .. }, 1)));
        assert_eq!(view.answered, Some(Epoch(3)));
    }

    #[test]
    fn half_a_snapshot_is_no_position_once_its_link_has_ended() {
        let mut view = TargetView::new(ADDRESS);
        view.link(ADDRESS, NOW);
        view.take(part(Part::Only, None), NOW);
        assert_eq!(view.known(), Some(at(7)));
        view.take(part(Part::First, None), NOW);
        view.unlink();
        view.link(ADDRESS, NOW);
        assert_eq!(view.known(), None);
        assert_eq!(view.take(part(Part::Middle, None), NOW), LogUpdate::Gap);
        assert_eq!(view.take(tail(7, 1, None), NOW), LogUpdate::Gap);
    }

    #[test]
    fn a_target_is_awaited_while_it_reports_and_not_for_ever() {
        let patience = Duration::from_secs(2);
        let after = |seconds| NOW + Duration::from_secs(seconds);
        let mut view = TargetView::new(ADDRESS);
        assert!(!view.is_awaited(NOW, patience), "it is not linked");
        view.link(ADDRESS, NOW);
        assert_eq!([1, 2].map(|seconds| view.is_awaited(after(seconds), patience)), [true, false]);
        for seconds in 1..30 {
            view.take(part(if seconds == 1 { Part::First } else { Part::Middle }, None), after(seconds));
            assert_eq!(view.is_awaited(after(seconds), patience), seconds < 4, "after {seconds} s of a snapshot");
        }
        // The next link is no new beginning, unless it comes late or the target had answered.
        view.unlink();
        view.link(ADDRESS, after(31));
        assert!(!view.is_awaited(after(31), patience));
        view.unlink();
        view.link(ADDRESS, after(41));
        assert!(view.is_awaited(after(42), patience));
        view.take(part(Part::Only, Some(Epoch(2))), after(42));
        view.listening = Some(Vec::new());
        assert!(view.is_warm() && !view.is_awaited(after(42), patience));
        view.unlink();
        view.link(ADDRESS, after(46));
        assert!(view.is_awaited(after(46), patience));
    }
}
