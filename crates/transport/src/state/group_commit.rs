//! Group commit: one write of everything that waits, however much it is.
//!
//! ```text
//!         request            flush                 done
//!  clean ─────────► stale ───────────► writing ─────────────► clean
//!                     ▲                   │ request
//!                     └─ done, or failed ─┴─► writing, stale
//! ```
//! Every write has all entries, so the first write that begins after a request confirms that request, and no request is
//! refused because there are too many. The disk alone limits the rate of writes.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

use super::StateFile;

/// Pause after a write that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// A slow disk is reported again only after a time of this length without a slow write.
const QUIET: Duration = Duration::from_secs(60);

/// Result of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All entries up to this token are on the disk.
    Stored { token: u64 },
    /// They are not. Nothing is written again before the next request.
    Failed { why: String },
}

/// Counters of one file's writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    pub stored: u64,
    pub failed: u64,
    /// Writes that took longer than they should.
    pub slow: u64,
}

impl std::ops::Add for Writes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let Self { stored, failed, slow } = other;
        Self { stored: self.stored + stored, failed: self.failed + failed, slow: self.slow + slow }
    }
}

/// The entries that a task of its own writes, and whether it has to write again.
#[derive(Debug)]
pub struct GroupCommit<T> {
    /// Has room for one write; while one is under way none is sent.
    entries: mpsc::Sender<(u64, Vec<T>)>,
    outcomes: mpsc::Receiver<(Outcome, Duration)>,
    slow: Duration,
    is_stale: bool,
    is_writing: bool,
    writes: Writes,
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> GroupCommit<T> {
    /// Starts the writer; to be called within a runtime. A write that takes longer than `slow` is logged, and so is a
    /// disk that refuses: once for as long as it lasts.
    #[must_use]
    pub fn start(file: StateFile<T>, slow: Duration) -> Self {
        let name = file.path().display().to_string();
        Self::start_with(name, slow, move |entries: &[T]| file.store(entries))
    }

    fn start_with(
        name: String,
        slow: Duration,
        store: impl Fn(&[T]) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (entries, entries_out) = mpsc::channel(1);
        let (outcomes_in, outcomes) = mpsc::channel(1);
        let writer = Writer { store: Arc::new(store), slow, report: Report::new(name) };
        tokio::spawn(writer.run(entries_out, outcomes_in));
        Self { entries, outcomes, slow, is_stale: false, is_writing: false, writes: Writes::default() }
    }

    /// Records that there is something new to be written.
    pub fn request(&mut self) {
        self.is_stale = true;
    }

    /// Begins a write if there is something new and no write is under way. `entries` returns all entries, and the token
    /// that confirms them. To be called before waiting for anything else.
    pub fn flush(&mut self, entries: impl FnOnce() -> (u64, Vec<T>)) {
        if self.is_stale && !self.is_writing {
            self.is_stale = false;
            // Refused only when the writer has ended with its runtime.
            self.is_writing = self.entries.try_send(entries()).is_ok();
        }
    }

    /// Waits for the end of the write that is under way. Cancel-safe.
    pub async fn done(&mut self) -> Outcome {
        let Some((outcome, took)) = self.outcomes.recv().await else { return std::future::pending().await };
        self.is_writing = false;
        match outcome {
            Outcome::Stored { .. } => self.writes.stored += 1,
            Outcome::Failed { .. } => self.writes.failed += 1,
        }
        self.writes.slow += u64::from(took > self.slow);
        outcome
    }

    #[must_use]
    pub fn writes(&self) -> Writes {
        self.writes
    }
}

struct Writer<S> {
    store: Arc<S>,
    slow: Duration,
    report: Report,
}

impl<S> Writer<S> {
    async fn run<T>(mut self, mut entries: mpsc::Receiver<(u64, Vec<T>)>, outcomes: mpsc::Sender<(Outcome, Duration)>)
    where
        T: Send + Sync + 'static,
        S: Fn(&[T]) -> io::Result<()> + Send + Sync + 'static,
    {
        while let Some((token, entries)) = entries.recv().await {
            let began = Instant::now();
            let store = Arc::clone(&self.store);
            let mut write = spawn_blocking(move || store(&entries));
            let written = match timeout(self.slow, &mut write).await {
                Ok(written) => written,
                Err(_) => {
                    self.report.slow(began, self.slow);
                    write.await
                }
            };
            let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
            self.report.written(&written);
            let outcome = match written {
                Ok(()) => Outcome::Stored { token },
                Err(error) => Outcome::Failed { why: error.to_string() },
            };
            let failed = matches!(outcome, Outcome::Failed { .. });
            if outcomes.send((outcome, began.elapsed())).await.is_err() {
                return;
            }
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// State of the log messages about the disk.
#[derive(Debug)]
struct Report {
    name: String,
    refuses_since: Option<Instant>,
    last_slow: Option<Instant>,
    lines: u64,
}

impl Report {
    fn new(name: String) -> Self {
        Self { name, refuses_since: None, last_slow: None, lines: 0 }
    }

    fn slow(&mut self, now: Instant, limit: Duration) {
        if self.last_slow.is_none_or(|last| now.duration_since(last) >= QUIET) {
            let limit = limit.as_millis();
            self.warn(format_args!("takes longer than {limit} ms to write, and grants and decisions wait for it"));
        }
        self.last_slow = Some(now);
    }

    fn written(&mut self, written: &io::Result<()>) {
        match (written, self.refuses_since) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Ok(()), Some(since)) => {
                self.refuses_since = None;
                self.warn(format_args!("is written again, after {} ms", since.elapsed().as_millis()));
            }
            (Err(error), None) => {
                self.refuses_since = Some(Instant::now());
                self.warn(format_args!("cannot be written, and nothing is granted or decided until it can: {error}"));
            }
        }
    }

    fn warn(&mut self, what: fmt::Arguments<'_>) {
        self.lines += 1;
        tracing::warn!("{} {what}", self.name);
    }
}

#[cfg(test)]
mod tests;
