//! The recorder: writes down every event of this router's cluster and what came of it, for `vipa-sim --replay`.
//!
//! ```text
//!   feed ──► page ──64 kB, or 5 ms──► a thread of its own ──► STATE_DIR/events.rec
//!                                                             STATE_DIR/events.rec.1, what was before
//! ```
//! Either file is a recording that stands for itself (`vipa_cluster::recording`) and has at most half of what is allowed. Control
//! never waits for the disk: what the disk does not take, for want of room or of speed, ends the recording and nothing else.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vipa_cluster::{Event, Output, Router, recording};
use vipa_model::Moment;
use vipa_protocol::admin::{Answer, DEFAULT_RECORDING_MB, Record, Said};

use crate::{admin::socket::Reply, control::Control, ownership::restart_gap::unix_ms};

const FILE: &str = "events.rec";
const FILE_BEFORE: &str = "events.rec.1";
/// What both files may have together, megabytes.
const LIMITS_MB: std::ops::RangeInclusive<u32> = 1..=65_536;
/// Handed to the writer as soon as there is so much, bytes.
const PAGE: usize = 64 << 10;
/// On its way to the disk at most, bytes.
const UNDER_WAY: usize = 16 << 20;

pub(crate) struct Recorder {
    folder: PathBuf,
    tape: Option<Tape>,
    events: u64,
    failed: u64,
}

/// A recording under way.
struct Tape {
    page: Vec<u8>,
    /// Bytes of the present file, those of the page among them, and when the next file begins.
    length: usize,
    full: usize,
    events: u64,
    room: Arc<Semaphore>,
    /// There until the end.
    writer: Option<mpsc::Sender<Page>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

struct Page {
    bytes: Vec<u8>,
    /// It is the beginning of a file.
    begins: bool,
    _room: OwnedSemaphorePermit,
}

impl Recorder {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, tape: None, events: 0, failed: 0 }
    }

    /// The file that is being written.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.tape.as_ref().map(|_| self.folder.join(FILE))
    }

    pub(crate) fn counts(&self) -> [(String, u64); 2] {
        [("record.events".into(), self.events), ("record.failed".into(), self.failed)]
    }

    /// From now on; a sentence either way.
    pub(crate) fn start(&mut self, limit_mb: u32, router: &Router, now: Moment) -> Result<String, String> {
        let file = self.folder.join(FILE).display().to_string();
        if self.tape.is_some() {
            return Err(format!("events are recorded already, to {file}"));
        }
        if !LIMITS_MB.contains(&limit_mb) {
            return Err(format!("a recording has {} to {} MB", LIMITS_MB.start(), LIMITS_MB.end()));
        }
        let (writer, pages) = mpsc::channel();
        let folder = self.folder.clone();
        let thread = Builder::new().name("recorder".into()).spawn(move || write(&folder, &pages));
        let mut tape = Tape {
            page: Vec::new(),
            length: 0,
            full: (limit_mb as usize) << 19,
            events: 0,
            room: Arc::new(Semaphore::new(UNDER_WAY)),
            writer: Some(writer),
            thread: Some(thread.map_err(|error| format!("no thread for it: {error}"))?),
        };
        tape.begin(router, now)?;
        self.tape = Some(tape);
        Ok(format!("every event is recorded to {file}, the newest {limit_mb} MB, until `vipactl record stop`"))
    }

    /// Ends it; the writer gets done by itself.
    pub(crate) fn stop(&mut self) -> Result<String, String> {
        let Some(mut tape) = self.tape.take() else { return Err("nothing is recorded".into()) };
        let events = tape.events;
        let whole = tape.turn_page();
        tape.thread = None;
        whole.map_err(|why| self.fails(why))?;
        Ok(format!("{events} events are in {} and {FILE_BEFORE} beside it", self.folder.join(FILE).display()))
    }

    /// An event is about to be handled by `router`.
    pub(crate) fn event(&mut self, now: Moment, event: &Event, router: &Router) {
        let Some(tape) = &mut self.tape else { return };
        let ready = if tape.length >= tape.full { tape.begin(router, now) } else { Ok(()) };
        tape.put(|page| recording::append_event(page, now, event));
        tape.events += 1;
        self.events += 1;
        if let Err(why) = ready {
            self.fails(why);
        }
    }

    /// This came of it.
    pub(crate) fn outputs(&mut self, outputs: &[Output]) {
        let Some(tape) = &mut self.tape else { return };
        tape.put(|page| recording::append_outputs(page, outputs));
        if tape.page.len() >= PAGE {
            self.hand_over();
        }
    }

    /// Hands over what there is, so that little is lost when the process dies.
    pub(crate) fn hand_over(&mut self) {
        let Some(tape) = &mut self.tape else { return };
        if let Err(why) = tape.turn_page() {
            self.fails(why);
        }
    }

    /// The recording has failed; nothing else has.
    fn fails(&mut self, why: String) -> String {
        self.failed += 1;
        self.tape = None;
        tracing::warn!(file = %self.folder.join(FILE).display(), "the recording has ended: {why}");
        why
    }
}

impl Tape {
    /// Another file, that begins with the router as it is.
    fn begin(&mut self, router: &Router, now: Moment) -> Result<(), String> {
        self.turn_page()?;
        self.page = recording::begin(router, now, unix_ms());
        self.length = self.page.len();
        if self.length >= self.full {
            return Err("what the router knows is larger than a file may be; allow it more".into());
        }
        self.hand_over(true)
    }

    fn put(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        let before = self.page.len();
        append(&mut self.page);
        self.length += self.page.len() - before;
    }

    fn turn_page(&mut self) -> Result<(), String> {
        if self.page.is_empty() { Ok(()) } else { self.hand_over(false) }
    }

    fn hand_over(&mut self, begins: bool) -> Result<(), String> {
        let bytes = std::mem::take(&mut self.page);
        let size = u32::try_from(bytes.len().min(UNDER_WAY)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(size) else {
            // Not waited for in the end either.
            self.thread = None;
            return Err(format!("the disk does not keep up, {} MB wait for it", UNDER_WAY >> 20));
        };
        let page = Page { bytes, begins, _room: room };
        if self.writer.as_ref().is_some_and(|writer| writer.send(page).is_ok()) {
            return Ok(());
        }
        // Nobody receives, so the thread is at its end.
        let end = self.thread.take().and_then(|thread| thread.join().ok()?.err());
        Err(format!("the file cannot be written: {}", end.map_or("unknown".into(), |error| error.to_string())))
    }
}

impl Drop for Tape {
    /// The process may end after this.
    fn drop(&mut self) {
        // Whether the last page finds room is for nobody to hear any more.
        let _ = self.turn_page();
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes pages until there are no more.
fn write(folder: &Path, pages: &mpsc::Receiver<Page>) -> io::Result<()> {
    let path = folder.join(FILE);
    let mut file: Option<File> = None;
    for Page { bytes, begins, _room } in pages {
        if begins || file.is_none() {
            match fs::rename(&path, folder.join(FILE_BEFORE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            file = Some(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?);
        }
        if let Some(file) = &mut file {
            file.write_all(&bytes)?;
        }
    }
    Ok(())
}

impl Control {
    /// Records every event from the first on, as `vipactl record start` does later.
    pub fn record_from_now_on(&mut self) {
        match self.recorder.start(DEFAULT_RECORDING_MB, &self.cluster, self.clock.now()) {
            Ok(sentence) => tracing::info!("{sentence}"),
            Err(why) => tracing::warn!("nothing is recorded: {why}"),
        }
    }

    pub(crate) fn record(&mut self, what: Record, reply: Reply) {
        let said = match what {
            Record::Start { limit_mb } => self.recorder.start(limit_mb, &self.cluster, self.clock.now()),
            Record::Stop => self.recorder.stop(),
        };
        reply.end(said.map_or_else(Answer::Error, |sentence| Answer::Done(Said { sentence })));
    }
}

#[cfg(test)]
mod tests;
