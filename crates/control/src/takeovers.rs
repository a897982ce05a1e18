//! The takeover report of every change of ownership: the cluster tells the times and the answers, this adds what
//! the packet path saw meanwhile. The newest reports are kept in a file across restarts.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    path::{Path, PathBuf},
};

use tokio::{sync::watch, task::JoinHandle};
use vipa_handoff::{Count, Fate, Reason, Totals};
use vipa_model::Moment;
use vipa_protocol::{TakeoverReport, admin::TakeoverRecord};
use vipa_transport::durable;

use crate::{
    last_life::{Arrived, Gap, LastLife, unix_ms},
    table::Taken,
};

/// Reports kept for `vipactl takeovers`, the newest: about 150 KB of file.
const KEPT: usize = 256;
const FILE: &str = "takeovers.json";

#[derive(Debug)]
pub(crate) struct Takeovers {
    under_way: HashMap<IpAddr, Progress>,
    done: VecDeque<TakeoverRecord>,
    last_life: LastLife,
    /// To whoever writes the file; the newest word counts.
    file: watch::Sender<Vec<TakeoverRecord>>,
    writer: JoinHandle<()>,
}

#[derive(Debug)]
struct Progress {
    began: Moment,
    before: Totals,
    known_before: u64,
    announced: Option<Moment>,
    first_forward: Option<Moment>,
    reported: Taken,
    unowned: Option<Gap>,
}

impl Takeovers {
    /// With what earlier lives left in `folder`. Call it within a runtime.
    pub(crate) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let done = read(&path);
        let (file, changes) = watch::channel(Vec::new());
        Self {
            under_way: HashMap::new(),
            done: done.into(),
            last_life: LastLife::open(folder),
            file,
            writer: tokio::spawn(write(path, changes)),
        }
    }

    /// Returns when the last report is on the disk.
    pub(crate) async fn close(self) {
        let Self { file, writer, last_life, .. } = self;
        last_life.end();
        drop(file);
        if writer.await.is_err() {
            tracing::warn!("the last takeover reports may be lost");
        }
    }

    /// Packets of `vipa` are about to come here; the table knows `known` of its connections.
    pub(crate) fn begin(&mut self, vipa: IpAddr, known: u64, seen: (Totals, &Arrived), now: Moment) {
        let (before, arrived) = seen;
        let progress = Progress {
            began: now,
            before,
            known_before: known,
            announced: None,
            first_forward: None,
            reported: Taken::default(),
            unowned: self.last_life.owned_again(vipa, arrived),
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
        self.under_way.values_mut().for_each(|progress| progress.watch(totals, now));
    }

    /// Rebuilding is complete. Packets released by it are still to be counted, so the record is completed on reading.
    pub(crate) fn finish(&mut self, report: TakeoverReport, totals: &Totals, now: Moment) -> Option<&TakeoverRecord> {
        let mut progress = self.under_way.remove(&report.vipa)?;
        progress.watch(totals, now);
        let meanwhile = totals.since(&progress.before);
        let micros = |moment: Moment| u64::try_from(moment.since(progress.began).as_micros()).unwrap_or(u64::MAX);
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        // If another was heard meanwhile it was not left alone.
        let unowned = progress.unowned.filter(|_| report.predecessor.is_none());
        self.done.push_back(TakeoverRecord {
            finished_unix_ms: unix_ms(),
            announce_us: progress.announced.map_or(0, micros),
            first_forward_us: progress.first_forward.map(micros),
            connections_known_before: progress.known_before,
            connections_rebuilt: progress.reported.opened,
            unowned_ms: unowned.map(|gap| gap.ms),
            unowned_frames: unowned.and_then(|gap| gap.frames),
            held: meanwhile.count(Count::Held),
            released: meanwhile.count(Count::Released),
            expired: meanwhile.fate(Fate::Drop(Reason::HoldExpired)),
            report,
        });
        self.done.back()
    }

    /// Has the file written anew, once for all takeovers that have been finished.
    pub(crate) fn write(&self) {
        self.file.send_replace(self.records());
    }

    /// Given up: somebody else owns the VIPA now.
    pub(crate) fn abandon(&mut self, vipa: IpAddr) {
        self.under_way.remove(&vipa);
    }

    /// This router stops, and nobody takes the VIPA.
    pub(crate) fn leave(&mut self, vipa: IpAddr, arrived: Arrived) {
        self.last_life.leave(vipa, arrived);
    }

    pub(crate) fn records(&self) -> Vec<TakeoverRecord> {
        self.done.iter().cloned().collect()
    }
}

impl Progress {
    fn watch(&mut self, totals: &Totals, now: Moment) {
        if self.first_forward.is_none() && totals.fate(Fate::Forward) > self.before.fate(Fate::Forward) {
            self.first_forward = Some(now);
        }
    }
}

/// A file that cannot be read costs its reports and nothing else.
fn read(path: &Path) -> Vec<TakeoverRecord> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "earlier takeover reports cannot be read");
            return Vec::new();
        }
    };
    let mut records: Vec<TakeoverRecord> = serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "earlier takeover reports are not understood");
        Vec::new()
    });
    records.drain(..records.len().saturating_sub(KEPT));
    records
}

/// Replaces the file whole at each change, beside the loop.
async fn write(path: PathBuf, mut changes: watch::Receiver<Vec<TakeoverRecord>>) {
    // After the sender is gone its last word is still to be seen.
    while changes.changed().await.is_ok() {
        let records = changes.borrow_and_update().clone();
        let path = path.clone();
        let stored = tokio::task::spawn_blocking(move || durable::replace(&path, &serde_json::to_vec(&records)?));
        if let Ok(Err(error)) = stored.await {
            tracing::warn!(%error, "the takeover report could not be stored");
        }
    }
}

#[cfg(test)]
mod tests;
