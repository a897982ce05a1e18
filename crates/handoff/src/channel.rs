//! The two ends of the channel.

use std::{fmt, net::IpAddr, sync::Arc};

use vipa_model::{Mac, PortId, TargetId, VipaId};
use vipa_sync::{Flag, Heartbeat, Mailbox, Publish, Reader, Versions, WorkerCounterList};

use crate::{Counters, Routes, Totals, VipaCount, VipaCounters, VipaTotals, WorkerLoad};

/// Notes of one worker that control has not read yet; more are refused and counted. Only ARP, neighbour discovery and
/// ICMP errors make notes, and they are repeated.
const NOTES: usize = 1024;
/// Frames of control that worker 0 has not sent yet: one for each target and VIPA of a large configuration.
const FRAMES: usize = 8192;
/// Snapshots kept for workers that may still read them. A worker moves on at least every 256 turns. While one does not,
/// nothing more is published, because each snapshot of a large configuration takes a megabyte.
const SNAPSHOTS: usize = 64;
/// Paths to targets that there may be: every `TargetId` is below this number.
pub const WAYS: usize = vipa_model::MAX_PATHS;
/// Bytes of the longest frame that control can send; ARP needs 60.
pub const FRAME_MAX: usize = 128;

/// Opens a channel between one control thread and `workers` workers, with `routes` as their first snapshot.
///
/// # Panics
/// Without a worker.
#[must_use]
pub fn open(routes: Arc<Routes>, workers: usize) -> (ControlChannel, Vec<WorkerChannel>) {
    assert!(workers > 0, "a router without workers forwards nothing");
    let (publish, readers) = Publish::new(routes, workers);
    let shared: Vec<_> = (0..workers).map(|_| Arc::new(WorkerShared::new())).collect();
    let stop = Arc::new(Flag::default());
    let worker = |(index, routes)| WorkerChannel {
        index,
        workers,
        routes,
        shared: Arc::clone(&shared[index]),
        stop: Arc::clone(&stop),
    };
    let channels = readers.into_iter().enumerate().map(worker).collect();
    (ControlChannel { routes: publish, workers: shared, stop }, channels)
}

/// A message of a worker to control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// ARP or neighbour discovery on `port`: `address` is at `mac`.
    Neighbour { port: PortId, address: IpAddr, mac: Mac },
    /// ARP or neighbour discovery on `port`: another station with `mac`, which is no port's of this router, claims
    /// `vipa`, which this router owns.
    Conflict { port: PortId, vipa: IpAddr, mac: Mac },
    /// A packet waits for the resolution of this neighbour.
    Wanted { port: PortId, address: IpAddr },
    /// A router on the path to this target reports that one of its links takes no more than `mtu` bytes of IP.
    NarrowPath { target: IpAddr, mtu: u16 },
}

/// A whole Ethernet frame that control sends through worker 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    port: PortId,
    length: u8,
    bytes: [u8; FRAME_MAX],
}

impl Frame {
    /// # Panics
    /// With more than [`FRAME_MAX`] bytes.
    #[must_use]
    pub fn new(port: PortId, bytes: &[u8]) -> Self {
        const _: () = assert!(FRAME_MAX <= u8::MAX as usize);
        assert!(bytes.len() <= FRAME_MAX, "control sends frames of at most {FRAME_MAX} bytes, not {}", bytes.len());
        let mut frame = Self { port, length: bytes.len() as u8, bytes: [0; FRAME_MAX] };
        frame.bytes[..bytes.len()].copy_from_slice(bytes);
        frame
    }

    #[must_use]
    pub fn port(&self) -> PortId {
        self.port
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?}, {:02x?})", self.port, self.bytes())
    }
}

/// State that one worker and control share.
pub struct WorkerShared {
    pub counters: Counters,
    /// New connections given to each path, by `TargetId`.
    pub admitted: WorkerCounterList,
    pub vipas: VipaCounters,
    pub notes: Mailbox<Note>,
    pub frames: Mailbox<Frame>,
    /// Incremented once in each turn.
    pub heartbeat: Heartbeat,
    pub load: WorkerLoad,
}

impl WorkerShared {
    fn new() -> Self {
        Self {
            counters: Counters::default(),
            admitted: WorkerCounterList::new(WAYS),
            vipas: VipaCounters::default(),
            notes: Mailbox::new(NOTES),
            frames: Mailbox::new(FRAMES),
            heartbeat: Heartbeat::default(),
            load: WorkerLoad::default(),
        }
    }
}

/// A worker's end; it moves to the worker's thread.
pub struct WorkerChannel {
    /// Worker 0 sends control's frames.
    pub index: usize,
    /// Number of workers.
    pub workers: usize,
    pub routes: Reader<Routes>,
    pub shared: Arc<WorkerShared>,
    pub stop: Arc<Flag>,
}

/// Control's end.
pub struct ControlChannel {
    routes: Publish<Routes>,
    workers: Vec<Arc<WorkerShared>>,
    stop: Arc<Flag>,
}

impl ControlChannel {
    /// Publishes the routes that each worker uses from its next burst on. To be called after
    /// [`takes_routes`](Self::takes_routes) has returned true.
    pub fn publish(&self, routes: Arc<Routes>) {
        self.routes.store(routes);
    }

    /// Whether another snapshot may be published. False while a worker stands still and the limit of 64 snapshots is kept for it.
    #[must_use]
    pub fn takes_routes(&self) -> bool {
        self.routes.reclaim() < SNAPSHOTS
    }

    /// The snapshot that was published last.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.current()
    }

    /// Frees snapshots that no worker can read any more; returns how many are left. 0: every worker has moved on to the
    /// newest.
    pub fn reclaim(&self) -> usize {
        self.routes.reclaim()
    }

    /// The newest snapshot's version, and the version that every worker has moved on to.
    #[must_use]
    pub fn versions(&self) -> Versions {
        self.routes.versions()
    }

    /// The workers' notes since the last call; ends when there are no more.
    pub fn notes(&self) -> impl Iterator<Item = Note> + '_ {
        self.workers.iter().flat_map(|shared| std::iter::from_fn(|| shared.notes.try_receive()))
    }

    /// Notes that were lost because their mailbox was full.
    #[must_use]
    pub fn notes_refused(&self) -> u64 {
        self.workers.iter().map(|shared| shared.notes.refused()).sum()
    }

    /// Makes worker 0 send a frame; false when too many are waiting already.
    #[must_use]
    pub fn send(&self, frame: Frame) -> bool {
        self.workers.first().is_some_and(|shared| shared.frames.try_send(frame).is_ok())
    }

    /// All workers' counters, summed.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.workers.iter().for_each(|shared| totals.add(&shared.counters));
        totals
    }

    /// All workers' counters of a VIPA, summed.
    #[must_use]
    pub fn vipa_totals(&self, vipa: VipaId) -> VipaTotals {
        let mut totals = VipaTotals::default();
        self.workers.iter().for_each(|shared| totals.add(vipa, &shared.vipas));
        totals
    }

    /// New connections that all workers have given to a path.
    #[must_use]
    pub fn admitted(&self, way: TargetId) -> u64 {
        self.workers.iter().map(|shared| shared.admitted.read(usize::from(way.0))).sum()
    }

    /// Connections of a VIPA that all workers have placed.
    #[must_use]
    pub fn opened(&self, vipa: VipaId) -> u64 {
        self.workers.iter().map(|shared| shared.vipas.read(vipa, VipaCount::Opened)).sum()
    }

    /// Each worker's side of the channel, for code that counts or watches each worker alone.
    #[must_use]
    pub fn workers(&self) -> &[Arc<WorkerShared>] {
        &self.workers
    }

    /// Stops all workers.
    pub fn stop(&self) {
        self.stop.raise();
    }
}

impl fmt::Debug for ControlChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlChannel").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for WorkerChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerChannel").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
