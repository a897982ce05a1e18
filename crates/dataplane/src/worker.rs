//! The loop.

use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use vipa_flow::{AgeLimits, Cursor, FlowTable, Key4, Tick};
use vipa_handoff::{Count, Desk, Fate, Reason, Routes, Stance, WorkerDoor};
use vipa_model::{Moment, PortId};
use vipa_packet::PacketBuf;
use vipa_sync::{Flag, Reader};

use crate::{
    BURST, IdlePolicy, Rx, Scene, Tx,
    classify::{Kind, Lanes, Verdict, classify, lookup},
    decide::{decide, decide_one},
    hold::{Awaiting, Held, Hold},
    idle::{Duty, Idle, Rest},
    outlet::Outlets,
};

/// Turns between two housekeepings under load; without load they come by [`HOUSEKEEP_TIME`].
const HOUSEKEEP_TURNS: u32 = 256;
const HOUSEKEEP_TIME: Duration = Duration::from_millis(1);
/// All held packets are looked up again this often, and at once when the routes change.
const HOLD_RETRY: Duration = Duration::from_millis(1);
/// Entries in a bucket of the table.
const BUCKET: usize = 4;
/// The whole table is looked over for aged entries in this time.
const AGEING_ROUND: Duration = Duration::from_secs(10);
/// Buckets looked over in one housekeeping at most, so that the oldest connections of a large table never keep packets
/// waiting.
const AGEING_MOST: usize = 4096;
/// Control's frames sent in one turn at most, so that many do not keep packets waiting.
const FRAMES_A_TURN: usize = BURST;

/// Bounds of one worker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Packets held at once. A port's buffer pool must have as many beside its queues' for each worker.
    pub held_packets: usize,
    /// Longest time a packet is held.
    pub held_for: Duration,
    /// How long a silent connection stays in the table, by state.
    pub ages: AgeLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self { held_packets: 4096, held_for: Duration::from_secs(3), ages: AgeLimits::default() }
    }
}

/// A receive queue and the port it belongs to.
pub struct Inlet<R> {
    pub port: PortId,
    pub rx: R,
}

/// One worker: the receive queues it polls, a transmit queue on every port, and its end of the door.
pub struct Worker<R: Rx, T: Tx<Buf = R::Buf>> {
    index: usize,
    routes: Reader<Routes>,
    desk: Arc<Desk>,
    stop: Arc<Flag>,
    flows: Arc<FlowTable>,
    limits: Limits,
    inlets: Vec<Inlet<R>>,
    outlets: Outlets<T>,
    burst: ArrayVec<R::Buf, BURST>,
    lanes: Lanes,
    hold: Hold<R::Buf>,
    /// Connections this worker has placed: whose turn it is.
    placed: u64,
    /// This worker's part of the table, for ageing, and its size in buckets.
    cursor: Cursor,
    buckets: usize,
    /// Turns since the last housekeeping.
    turns: u32,
    housekept: Moment,
    /// When held packets were last looked up, and by which routes.
    retried: (Moment, u64),
    duty: Duty,
}

impl<R: Rx, T: Tx<Buf = R::Buf>> Worker<R, T> {
    /// `outlets` has one queue for each port of the routes, by `PortId`: a target may be reached through any.
    #[must_use]
    pub fn new(
        door: WorkerDoor,
        flows: Arc<FlowTable>,
        inlets: Vec<Inlet<R>>,
        outlets: Vec<T>,
        limits: Limits,
    ) -> Self {
        let WorkerDoor { index, workers, routes, desk, stop } = door;
        Self {
            index,
            routes,
            desk,
            stop,
            inlets,
            outlets: Outlets::new(outlets),
            burst: ArrayVec::new(),
            lanes: Lanes::new(),
            hold: Hold::new(limits.held_packets, limits.held_for),
            limits,
            // Workers begin at different places, so that their first connections do not all meet at one target.
            placed: index as u64,
            buckets: flows.slots() / BUCKET / workers,
            cursor: Cursor::new(index, workers),
            flows,
            turns: 0,
            housekept: Moment::ZERO,
            retried: (Moment::ZERO, 0),
            duty: Duty::Backup,
        }
    }

    /// Turns until control says stop, resting between turns as `policy` says. `clock` is the clock that leases are
    /// set by.
    pub fn run(&mut self, policy: IdlePolicy, clock: impl Fn() -> Moment) {
        let mut idle = Idle::new(policy);
        while !self.stop.is_raised() {
            let received = self.turn(clock());
            match idle.after(received, self.duty) {
                Rest::None => {}
                Rest::Pause => std::hint::spin_loop(),
                Rest::Sleep(time) => std::thread::sleep(time),
            }
        }
        self.give_up_held();
    }

    /// One turn: everything that has arrived, up to a burst from each queue. Says how many packets that was.
    pub fn turn(&mut self, now: Moment) -> usize {
        let routes = self.routes.snapshot();
        let scene = Scene { routes, flows: &self.flows, desk: &self.desk, now, tick: Tick::from(now) };
        let mut received = 0;
        if !self.hold.is_empty() && retry_is_due(&mut self.retried, &scene) {
            retry(&scene, &mut self.hold, &mut self.outlets, &mut self.placed);
        }
        for inlet in &mut self.inlets {
            inlet.rx.burst(&mut self.burst);
            received += self.burst.len();
            classify(&scene, inlet.port, &self.burst, &mut self.lanes);
            lookup(scene.flows, &mut self.lanes);
            decide(&scene, &mut self.lanes, &mut self.placed);
            settle(&scene, inlet.port, &mut self.burst, &self.lanes, &mut self.hold, &mut self.outlets);
        }
        self.outlets.transmit(&self.desk.counters);
        self.desk.counters.add(Count::Received, received as u64);
        self.desk.counters.set(Count::Holding, self.hold.len() as u64);
        self.send_frames();
        self.housekeep_sometimes(now);
        received
    }

    /// Worker 0 sends what control wants sent: announcements, and questions for neighbours.
    #[inline]
    fn send_frames(&mut self) {
        if self.index != 0 || self.desk.frames.is_empty() {
            return;
        }
        for _ in 0..FRAMES_A_TURN {
            let Some(frame) = self.desk.frames.try_receive() else { break };
            if self.outlets.compose(frame.port(), frame.bytes()) {
                self.desk.counters.add(Count::FrameSent, 1);
                self.desk.counters.add(Count::Sent, 1);
            } else {
                self.desk.counters.add(Count::FrameRefused, 1);
            }
        }
    }

    #[inline]
    fn housekeep_sometimes(&mut self, now: Moment) {
        self.turns += 1;
        self.desk.heartbeat.beat();
        if self.turns >= HOUSEKEEP_TURNS || now.since(self.housekept) >= HOUSEKEEP_TIME {
            self.housekeep(now);
        }
    }

    #[inline(never)]
    fn housekeep(&mut self, now: Moment) {
        let routes = self.routes.snapshot();
        let owns = routes.vipas.iter().any(|vipa| vipa.stance != Stance::Standby);
        self.duty = if owns { Duty::Owner } else { Duty::Backup };
        self.routes.quiescent();
        self.age(now);
        self.turns = 0;
        self.housekept = now;
    }

    /// Looks over as many buckets of its part as the time since the last housekeeping is of a round.
    fn age(&mut self, now: Moment) {
        let passed = now.since(self.housekept).min(AGEING_ROUND);
        let share = self.buckets as f64 * passed.as_secs_f64() / AGEING_ROUND.as_secs_f64();
        // At least one, so that a small table has its rounds too.
        let buckets = (share as usize).clamp(1, AGEING_MOST);
        let aged = self.flows.age(&mut self.cursor, buckets, Tick::from(now), &self.limits.ages);
        self.desk.counters.add(Count::FlowAged, aged.removed.total());
    }

    /// At the end no packet is left without a fate.
    fn give_up_held(&mut self) {
        while self.hold.pop().is_some() {
            self.desk.counters.add(Fate::Drop(Reason::HoldExpired), 1);
        }
        self.desk.counters.set(Count::Holding, 0);
    }

    /// A receive queue, for those who play the network.
    pub fn rx(&mut self, inlet: usize) -> Option<&mut R> {
        self.inlets.get_mut(inlet).map(|inlet| &mut inlet.rx)
    }

    /// A port's transmit queue, for those who play the network.
    pub fn tx(&mut self, port: PortId) -> Option<&mut T> {
        self.outlets.queue(port)
    }
}

/// Does with each packet of a burst what was decided.
#[inline]
fn settle<T: Tx>(
    scene: &Scene<'_>,
    from: PortId,
    burst: &mut ArrayVec<T::Buf, BURST>,
    lanes: &Lanes,
    hold: &mut Hold<T::Buf>,
    outlets: &mut Outlets<T>,
) {
    for (place, packet) in burst.drain(..).enumerate() {
        let (packet, awaiting) = match lanes.verdicts[place] {
            Verdict::Forward(target) => match outlets.forward(scene, target, packet) {
                Ok(()) => continue,
                Err(packet) => (packet, Awaiting::Neighbour),
            },
            Verdict::Answer(reply) => {
                outlets.answer(scene, from, reply, packet);
                continue;
            }
            Verdict::Done(fate) => {
                scene.desk.counters.add(fate, 1);
                continue;
            }
            Verdict::Hold => (packet, Awaiting::Connection),
        };
        let connection = lanes.connection_of(place);
        hold_or_drop(scene, hold, packet, connection, from, awaiting);
    }
}

#[inline(never)]
fn hold_or_drop<B: PacketBuf>(
    scene: &Scene<'_>,
    hold: &mut Hold<B>,
    packet: B,
    connection: Option<(Key4, Kind)>,
    port: PortId,
    awaiting: Awaiting,
) {
    let held = match connection {
        Some((key, kind)) => hold.push(Held { packet, key, kind, port, since: scene.now }, awaiting),
        // Only a connection's packets are held.
        None => Err(Reason::Orphan),
    };
    match held {
        Ok(()) => scene.desk.counters.add(Count::Held, 1),
        Err(reason) => scene.desk.counters.add(Fate::Drop(reason), 1),
    }
}

fn retry_is_due(retried: &mut (Moment, u64), scene: &Scene<'_>) -> bool {
    let due = scene.now.since(retried.0) >= HOLD_RETRY || scene.routes.generation != retried.1;
    if due {
        *retried = (scene.now, scene.routes.generation);
    }
    due
}

/// Looks all held packets up again, in order of arrival.
#[inline(never)]
fn retry<T: Tx>(scene: &Scene<'_>, hold: &mut Hold<T::Buf>, outlets: &mut Outlets<T>, placed: &mut u64) {
    let mut left = hold.len();
    while left > 0 {
        let batch: ArrayVec<Held<T::Buf>, BURST> = (0..left.min(BURST)).map_while(|_| hold.pop()).collect();
        left -= batch.len();
        let keys: ArrayVec<Key4, BURST> = batch.iter().map(|held| held.key).collect();
        let mut hits = [const { None }; BURST];
        scene.flows.lookup_batch(&keys, &mut hits[..keys.len()]);
        for (held, hit) in batch.into_iter().zip(hits) {
            let verdict = decide_one(scene, &held.key, held.kind, hit, placed);
            settle_held(scene, hold, outlets, held, verdict);
        }
    }
}

fn settle_held<T: Tx>(
    scene: &Scene<'_>,
    hold: &mut Hold<T::Buf>,
    outlets: &mut Outlets<T>,
    held: Held<T::Buf>,
    verdict: Verdict,
) {
    let counters = &scene.desk.counters;
    let expired = hold.has_expired(&held, scene.now);
    let Held { packet, key, kind, port, since } = held;
    let (packet, late) = match verdict {
        Verdict::Forward(target) => match outlets.forward(scene, target, packet) {
            Ok(()) => return counters.add(Count::Released, 1),
            Err(packet) => (packet, Reason::NoNeighbour),
        },
        Verdict::Answer(reply) => return outlets.answer(scene, port, reply, packet),
        Verdict::Done(fate) => return counters.add(fate, 1),
        Verdict::Hold => (packet, Reason::HoldExpired),
    };
    if expired {
        counters.add(Fate::Drop(late), 1);
    } else {
        hold.put_back(Held { packet, key, kind, port, since });
    }
}
