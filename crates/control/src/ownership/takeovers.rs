//! The takeover report of every change of ownership: the cluster tells the times and the answers, this adds what
//! the packet path saw meanwhile. The newest reports are kept in a file across restarts.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use vipa_handoff::VipaTotals;
use vipa_model::{Epoch, Moment, VipaId};
use vipa_protocol::{TakeoverReport, admin::TakeoverRecord};
use vipa_transport::durable;

use crate::{
    ownership::restart_gap::{Arrived, Gap, RestartGap, unix_ms},
    table::reports::Taken,
};

/// A report waits for so long for held packets to leave. They are released within a millisecond.
const DRAIN: Duration = Duration::from_millis(100);
/// Reports kept for `vipactl takeovers`, the newest: about 150 KB of file.
const KEPT: usize = 256;
const FILE: &str = "takeovers.json";

#[derive(Debug)]
pub(crate) struct Takeovers {
    under_way: HashMap<IpAddr, Progress>,
    /// Rebuilt, but not all of their figures are there.
    rebuilt: Vec<Rebuilt>,
    done: VecDeque<TakeoverRecord>,
    restart_gap: RestartGap,
    /// To whoever writes the file; the newest word counts.
    file: watch::Sender<Vec<TakeoverRecord>>,
    writer: JoinHandle<()>,
}

#[derive(Debug)]
struct Progress {
    id: VipaId,
    epoch: Epoch,
    began: Moment,
    before: VipaTotals,
    /// Its connections in the table; `None`: they are being counted.
    known_before: Option<u64>,
    announced: Option<Moment>,
    first_forward: Option<Moment>,
    reported: Taken,
    unowned: Option<Gap>,
}

/// A takeover that is complete, and its report as the cluster tells it.
#[derive(Debug)]
struct Rebuilt {
    progress: Progress,
    report: TakeoverReport,
    at: Moment,
    finished_unix_ms: u64,
}

impl Takeovers {
    /// With what earlier lives left in `folder`. Call it within a runtime.
    pub(crate) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let done = read(&path);
        let (file, changes) = watch::channel(Vec::new());
        Self {
            under_way: HashMap::new(),
            rebuilt: Vec::new(),
            done: done.into(),
            restart_gap: RestartGap::open(folder),
            file,
            writer: tokio::spawn(write(path, changes)),
        }
    }

    /// Returns when the last report is on the disk.
    pub(crate) async fn close(mut self) {
        for rebuilt in std::mem::take(&mut self.rebuilt) {
            let now = rebuilt.progress.before;
            self.keep(rebuilt, &now);
        }
        self.write();
        let Self { file, writer, restart_gap, .. } = self;
        restart_gap.end();
        drop(file);
        if writer.await.is_err() {
            tracing::warn!("the last takeover reports may be lost");
        }
    }

    /// Packets of `vipa` are about to come here. `before`: what the workers have counted for it. Its connections in the table are
    /// told by [`counted`](Self::counted).
    pub(crate) fn begin(
        &mut self,
        (vipa, id, epoch): (IpAddr, VipaId, Epoch),
        before: VipaTotals,
        arrived: &Arrived,
        now: Moment,
    ) {
        let progress = Progress {
            id,
            epoch,
            began: now,
            before,
            known_before: None,
            announced: None,
            first_forward: None,
            reported: Taken::default(),
            unowned: self.restart_gap.owned_again(vipa, arrived),
        };
        self.under_way.insert(vipa, progress);
    }

    /// The table knew so many connections of `vipa` when this takeover began.
    pub(crate) fn counted(&mut self, vipa: IpAddr, epoch: Epoch, known: u64) {
        let rebuilt = self.rebuilt.iter_mut().filter(|rebuilt| rebuilt.report.vipa == vipa);
        let of_vipa = self.under_way.get_mut(&vipa).into_iter().chain(rebuilt.map(|rebuilt| &mut rebuilt.progress));
        of_vipa.filter(|progress| progress.epoch == epoch).for_each(|progress| progress.known_before = Some(known));
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

    /// Notes the first packet forwarded since each began. `counted`: what the workers have counted for a VIPA.
    pub(crate) fn watch(&mut self, counted: impl Fn(VipaId) -> VipaTotals, now: Moment) {
        self.under_way.values_mut().for_each(|progress| progress.watch(&counted(progress.id), now));
    }

    /// Rebuilding is complete. The report waits for the count of the connections known before, and for the packets that it
    /// releases.
    pub(crate) fn finish(&mut self, report: TakeoverReport, counted: impl Fn(VipaId) -> VipaTotals, now: Moment) {
        let Some(mut progress) = self.under_way.remove(&report.vipa) else { return };
        progress.watch(&counted(progress.id), now);
        self.rebuilt.push(Rebuilt { progress, report, at: now, finished_unix_ms: unix_ms() });
    }

    /// The reports that have all their figures now.
    pub(crate) fn completed(&mut self, counted: impl Fn(VipaId) -> VipaTotals, now: Moment) -> Vec<TakeoverRecord> {
        let is_complete = |rebuilt: &mut Rebuilt| {
            let is_drained = || counted(rebuilt.progress.id).since(&rebuilt.progress.before).holds_nothing();
            rebuilt.progress.known_before.is_some() && (now.since(rebuilt.at) >= DRAIN || is_drained())
        };
        let complete: Vec<Rebuilt> = self.rebuilt.extract_if(.., is_complete).collect();
        let mut records = Vec::new();
        for rebuilt in complete {
            let totals = counted(rebuilt.progress.id);
            records.push(self.keep(rebuilt, &totals));
        }
        if !records.is_empty() {
            self.write();
        }
        records
    }

    fn keep(&mut self, rebuilt: Rebuilt, totals: &VipaTotals) -> TakeoverRecord {
        let Rebuilt { progress, report, at: _, finished_unix_ms } = rebuilt;
        let meanwhile = totals.since(&progress.before);
        let micros = |moment: Moment| u64::try_from(moment.since(progress.began).as_micros()).unwrap_or(u64::MAX);
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        // If another was heard meanwhile it was not left alone.
        let unowned = progress.unowned.filter(|_| report.predecessor.is_none());
        let record = TakeoverRecord {
            finished_unix_ms,
            announce_us: progress.announced.map_or(0, micros),
            first_forward_us: progress.first_forward.map(micros),
            connections_known_before: progress.known_before.unwrap_or_default(),
            connections_rebuilt: progress.reported.opened,
            unowned_ms: unowned.map(|gap| gap.ms),
            unowned_frames: unowned.and_then(|gap| gap.frames),
            held: meanwhile.held,
            released: meanwhile.released,
            expired: meanwhile.expired,
            report,
        };
        self.done.push_back(record.clone());
        record
    }

    /// Has the file written anew, once for all takeovers that have been finished.
    fn write(&self) {
        self.file.send_replace(self.records());
    }

    /// Given up: somebody else owns the VIPA now.
    pub(crate) fn abandon(&mut self, vipa: IpAddr) {
        self.under_way.remove(&vipa);
    }

    /// This router stops, and nobody takes the VIPA.
    pub(crate) fn leave(&mut self, vipa: IpAddr, arrived: Arrived) {
        self.restart_gap.leave(vipa, arrived);
    }

    pub(crate) fn records(&self) -> Vec<TakeoverRecord> {
        self.done.iter().cloned().collect()
    }
}

impl Progress {
    fn watch(&mut self, totals: &VipaTotals, now: Moment) {
        let since = totals.since(&self.before);
        if self.first_forward.is_none() && since.forwarded + since.released > 0 {
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
