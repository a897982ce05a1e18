//! The takeover report of every change of ownership: the cluster tells the times and the answers, this adds what
//! the packet path saw meanwhile.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::SystemTime,
};

use vipa_handoff::{Count, Fate, Reason, Totals};
use vipa_model::Moment;
use vipa_protocol::{TakeoverReport, admin::TakeoverRecord};

use crate::table::Taken;

/// Reports kept for `vipactl takeovers`, the newest.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Takeovers {
    under_way: HashMap<IpAddr, Progress>,
    done: VecDeque<TakeoverRecord>,
}

#[derive(Debug)]
struct Progress {
    began: Moment,
    before: Totals,
    known_before: u64,
    announced: Option<Moment>,
    first_forward: Option<Moment>,
    reported: Taken,
}

impl Takeovers {
    /// Packets of `vipa` are about to come here; the table knows `known` of its connections.
    pub(crate) fn begin(&mut self, vipa: IpAddr, known: u64, before: Totals, now: Moment) {
        let progress = Progress {
            began: now,
            before,
            known_before: known,
            announced: None,
            first_forward: None,
            reported: Taken::default(),
        };
        self.under_way.insert(vipa, progress);
    }

    /// The first announcement is on its way to the port.
    pub(crate) fn announced(&mut self, vipa: IpAddr, now: Moment) {
        if let Some(progress) = self.under_way.get_mut(&vipa) {
            progress.announced.get_or_insert(now);
        }
    }

    /// A target's reports were written into the table.
    pub(crate) fn reported(&mut self, vipa: IpAddr, taken: Taken) {
        if let Some(progress) = self.under_way.get_mut(&vipa) {
            progress.reported.add(taken);
        }
    }

    /// Notes the first packet forwarded since each began.
    pub(crate) fn watch(&mut self, totals: &Totals, now: Moment) {
        for progress in self.under_way.values_mut() {
            if progress.first_forward.is_none() && totals.fate(Fate::Forward) > progress.before.fate(Fate::Forward) {
                progress.first_forward = Some(now);
            }
        }
    }

    /// Rebuilding is complete. Packets released by it are still to be counted, so the record is completed on reading.
    pub(crate) fn finish(&mut self, report: TakeoverReport, totals: &Totals, now: Moment) -> Option<&TakeoverRecord> {
        self.watch(totals, now);
        let progress = self.under_way.remove(&report.vipa)?;
        let meanwhile = totals.since(&progress.before);
        let micros = |moment: Moment| u64::try_from(moment.since(progress.began).as_micros()).unwrap_or(u64::MAX);
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        self.done.push_back(TakeoverRecord {
            finished_unix_ms: unix_ms(),
            announce_us: progress.announced.map_or(0, micros),
            first_forward_us: progress.first_forward.map(micros),
            connections_known_before: progress.known_before,
            connections_rebuilt: progress.reported.opened,
            held: meanwhile.count(Count::Held),
            released: meanwhile.count(Count::Released),
            expired: meanwhile.fate(Fate::Drop(Reason::HoldExpired)),
            report,
        });
        self.done.back()
    }

    /// Given up: somebody else owns the VIPA now.
    pub(crate) fn abandon(&mut self, vipa: IpAddr) {
        self.under_way.remove(&vipa);
    }

    pub(crate) fn records(&self) -> Vec<TakeoverRecord> {
        self.done.iter().cloned().collect()
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
