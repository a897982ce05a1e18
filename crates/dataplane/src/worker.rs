//! The loop.

use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use vipa_flow::{
    AgeLimits, Cursor, FlowTable, Key, Tick,
    vectors::{Vectors, Work},
};
use vipa_handoff::{Count, Desk, Fate, Flows, LocalReply, Reason, Routes, VipaCount, WorkerDoor};
use vipa_model::{Moment, PortId, Stance};
use vipa_packet::HeaderColumns;
use vipa_sync::{Flag, Reader};

use crate::{
    BURST, IdlePolicy, Rx, Scene, Tx,
    classify::{Arrived, classify, first_part},
    decide::{Admission, decide, decide_again},
    fragments::{FirstPart, Fragments, Lesson, ROOM},
    hold::{Awaiting, Held, Hold},
    idle::{Duty, Idle, Rest},
    lanes::{Lanes, Verdict},
    outlet::Outlets,
    places::Places,
    pressure::Pressure,
    way::{Ready, Stuck, forward, forward_part, give_back},
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
/// Bursts taken from one queue in a turn at most, so that the others have theirs and the time is not too old.
const BURSTS_A_TURN: usize = 8;
/// Control's frames sent in one turn at most, so that many do not keep packets waiting.
const FRAMES_A_TURN: usize = BURST;

/// Bounds of one worker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Packets held at once. A port's buffer pool must have [`waiting_packets`](Self::waiting_packets) beside its queues' for
    /// each worker.
    pub held_packets: usize,
    /// Longest time a packet is held.
    pub held_for: Duration,
    /// How long a silent connection stays in the table, by state.
    pub ages: AgeLimits,
    /// Answers a second to pings, strays and packets that are too big, of each worker.
    pub answers_per_second: u32,
    /// By `PortId`: this worker's packets a second to a kernel interface; `None` is another port.
    pub kernel_per_second: Vec<Option<u32>>,
}

impl Limits {
    /// Packets that may wait at a worker, for whatever reason.
    #[must_use]
    pub fn waiting_packets(&self) -> usize {
        self.held_packets + ROOM
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            held_packets: 4096,
            held_for: Duration::from_secs(3),
            ages: AgeLimits::default(),
            answers_per_second: 10_000,
            kernel_per_second: Vec::new(),
        }
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
    flows: Arc<Flows>,
    limits: Limits,
    inlets: Vec<Inlet<R>>,
    /// Of each inlet.
    pressures: Vec<Pressure>,
    outlets: Outlets<T>,
    columns: Box<HeaderColumns>,
    /// The one that is being classified, and the one before it, whose lookups have begun. Between turns there is nothing in them.
    batches: [Batch<R::Buf>; 2],
    hold: Hold<R::Buf>,
    fragments: Fragments<R::Buf, Verdict>,
    admission: Admission,
    /// This worker's parts of the tables, for ageing.
    rounds: Rounds,
    /// The routes that limits were last taken from.
    limited_by: u64,
    /// Turns since the last housekeeping.
    turns: u32,
    housekept: Moment,
    /// When held packets were last looked up, and by which routes.
    retried: (Moment, u64),
    duty: Duty,
    vectors: Vectors,
}

impl<R: Rx, T: Tx<Buf = R::Buf>> Worker<R, T> {
    /// `outlets` has one queue for each port of the routes, by `PortId`: a target may be reached through any.
    #[must_use]
    pub fn new(door: WorkerDoor, flows: Arc<Flows>, inlets: Vec<Inlet<R>>, outlets: Vec<T>, limits: Limits) -> Self {
        let WorkerDoor { index, workers, routes, desk, stop } = door;
        Self {
            index,
            routes,
            desk,
            stop,
            pressures: vec![Pressure::default(); inlets.len()],
            inlets,
            outlets: Outlets::new(outlets, &limits.kernel_per_second, limits.answers_per_second),
            columns: Box::default(),
            batches: [Batch::new(), Batch::new()],
            hold: Hold::new(limits.held_packets, limits.held_for),
            fragments: Fragments::new(),
            admission: Admission::new(workers),
            rounds: Rounds { ipv4: Cursor::new(index, workers), ipv6: Cursor::new(index, workers), workers },
            limited_by: u64::MAX,
            limits,
            flows,
            turns: 0,
            housekept: Moment::ZERO,
            retried: (Moment::ZERO, 0),
            duty: Duty::Backup,
            vectors: Vectors::of_this_processor(),
        }
    }

    /// Turns until control says stop, resting between turns as `policy` says. `clock` is the clock that leases are
    /// set by.
    pub fn run(&mut self, policy: IdlePolicy, clock: impl Fn() -> Moment) {
        let mut idle = Idle::new(policy);
        while !self.stop.is_raised() {
            let received = self.turn(&clock);
            match idle.after(received, self.duty) {
                Rest::None => {}
                Rest::Pause => std::hint::spin_loop(),
                Rest::Sleep(time) => std::thread::sleep(time),
            }
        }
        self.give_up_held();
    }

    /// One turn: everything that has arrived, up to [`BURSTS_A_TURN`] from each queue. Returns the number of packets.
    ///
    /// Reads `clock` at the start and before it decides on each burst: a worker that the machine stops in the middle of a turn
    /// sees in its next burst that a lease has passed.
    pub fn turn(&mut self, clock: impl Fn() -> Moment) -> usize {
        self.vectors.run(Turn { worker: self, clock })
    }

    #[inline(always)]
    fn turn_wide(&mut self, clock: impl Fn() -> Moment) -> usize {
        let routes = self.routes.snapshot();
        let now = clock();
        let mut scene = Scene { routes, flows: &self.flows, desk: &self.desk, now, tick: Tick::from(now) };
        let mut received = 0;
        let columns = &mut *self.columns;
        let mut settler = Settler { hold: &mut self.hold, fragments: &mut self.fragments, outlets: &mut self.outlets };
        if !settler.hold.is_empty() && retry_is_due(&mut self.retried, &scene) {
            settler.retry(&mut scene, &mut self.admission, &clock);
        }
        for (inlet, pressure) in self.inlets.iter_mut().zip(&mut self.pressures) {
            // The lookups of one burst begin while the one before it is decided.
            let [one, other] = &mut self.batches;
            let (mut batch, mut before) = (one, other);
            let mut more = BURSTS_A_TURN;
            while more > 0 || !before.packets.is_empty() {
                if more > 0 {
                    inlet.rx.burst(&mut batch.packets);
                    let arrived = batch.packets.len();
                    received += arrived;
                    more = if arrived == BURST { more - 1 } else { 0 };
                    batch.lanes.grant(pressure.openings(arrived, scene.now));
                    let burst = Arrived {
                        port: inlet.port,
                        sums: inlet.rx.header_sums(&batch.packets),
                        packets: &batch.packets,
                    };
                    classify(&scene, &burst, settler.fragments, (self.vectors, &mut *columns, &mut batch.lanes));
                }
                let Batch { packets, lanes } = &mut *before;
                if !packets.is_empty() {
                    scene.advance(clock());
                }
                decide(&scene, (packets, lanes), &mut batch.lanes, &mut self.admission);
                if lanes.have_established() {
                    pressure.saw_established(scene.now);
                }
                settler.settle(&scene, inlet.port, packets, lanes);
                std::mem::swap(&mut batch, &mut before);
            }
        }
        if settler.fragments.waiting() > 0 {
            settler.release_parts(&scene);
        }
        let now = scene.now;
        self.outlets.transmit(&self.desk.counters);
        self.desk.counters.add(Count::Received, received as u64);
        self.desk.counters.set(Count::Holding, (self.hold.len() + self.fragments.waiting()) as u64);
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
        if routes.generation != self.limited_by {
            self.limited_by = routes.generation;
            self.admission.limit(&routes.vipas);
        }
        self.routes.quiescent();
        self.age(now);
        self.turns = 0;
        self.housekept = now;
    }

    /// Looks over as many buckets of its part as the time since the last housekeeping is of a round.
    fn age(&mut self, now: Moment) {
        let passed = now.since(self.housekept).min(AGEING_ROUND);
        let share = passed.as_secs_f64() / AGEING_ROUND.as_secs_f64() / self.rounds.workers as f64;
        let round = Round { share, now: Tick::from(now), ages: &self.limits.ages, routes: self.routes.snapshot() };
        let aged =
            round.age(&self.flows.ipv4, &mut self.rounds.ipv4) + round.age(&self.flows.ipv6, &mut self.rounds.ipv6);
        self.desk.counters.add(Count::FlowAged, aged);
    }

    /// At the end no packet is left without a fate.
    fn give_up_held(&mut self) {
        while self.hold.pop().is_some() {
            self.desk.counters.add(Fate::Drop(Reason::HoldExpired), 1);
        }
        self.desk.counters.add(Fate::Drop(Reason::Fragment), self.fragments.give_up() as u64);
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

/// A burst, and what is known of each of its packets.
struct Batch<B> {
    packets: ArrayVec<B, BURST>,
    lanes: Lanes,
}

impl<B> Batch<B> {
    fn new() -> Self {
        Self { packets: ArrayVec::new(), lanes: Lanes::new() }
    }
}

/// A turn, for whatever vector instructions the processor has.
struct Turn<'w, R: Rx, T: Tx<Buf = R::Buf>, C> {
    worker: &'w mut Worker<R, T>,
    clock: C,
}

impl<R: Rx, T: Tx<Buf = R::Buf>, C: Fn() -> Moment> Work for Turn<'_, R, T, C> {
    type Output = usize;

    #[inline(always)]
    fn run(self) -> usize {
        self.worker.turn_wide(self.clock)
    }
}

/// Where a worker's ageing has come to, in each table.
struct Rounds {
    ipv4: Cursor,
    ipv6: Cursor,
    workers: usize,
}

/// A stretch of ageing.
struct Round<'a> {
    /// Of each table.
    share: f64,
    now: Tick,
    ages: &'a AgeLimits,
    routes: &'a Routes,
}

impl Round<'_> {
    /// Looks over its share of a table; says how many connections went.
    fn age<K: Key>(&self, flows: &FlowTable<K>, cursor: &mut Cursor) -> u64 {
        // At least one, so that a small table has its rounds too.
        let buckets = (((flows.slots() / BUCKET) as f64 * self.share) as usize).clamp(1, AGEING_MOST);
        let is_away = |target| self.routes.is_away(target);
        flows.age_without(cursor, buckets, self.now, self.ages, is_away).removed.total()
    }
}

fn retry_is_due(retried: &mut (Moment, u64), scene: &Scene<'_>) -> bool {
    let due = scene.now.since(retried.0) >= HOLD_RETRY || scene.routes.generation != retried.1;
    if due {
        *retried = (scene.now, scene.routes.generation);
    }
    due
}

/// Does with packets what was decided.
struct Settler<'w, T: Tx> {
    hold: &'w mut Hold<T::Buf>,
    fragments: &'w mut Fragments<T::Buf, Verdict>,
    outlets: &'w mut Outlets<T>,
}

impl<T: Tx> Settler<'_, T> {
    /// All packets of a burst, after which nothing is known of any.
    #[inline(always)]
    fn settle(&mut self, scene: &Scene<'_>, from: PortId, burst: &mut ArrayVec<T::Buf, BURST>, lanes: &mut Lanes) {
        if !lanes.firsts.is_empty() {
            self.learn(scene, lanes);
        }
        let Ready { places, port } = lanes.ready;
        let first = places.leading();
        let mut not_sent = Places::NONE;
        self.outlets.send_first(&scene.desk.counters, port, burst, first);
        for (place, packet) in (first..).zip(burst.drain(..)) {
            if places.has(place) {
                if self.outlets.send(&scene.desk.counters, port, packet, Fate::Forward).is_err() {
                    scene.desk.counters.add(Fate::Drop(Reason::NoRoute), 1);
                }
                continue;
            }
            let verdict = lanes.verdicts[place];
            if let Verdict::Forward(target) = verdict {
                match forward(scene, self.outlets, target, packet) {
                    Ok(()) => {}
                    Err(stuck) => {
                        not_sent.add(place);
                        self.stuck(scene, from, lanes, (place, stuck));
                    }
                }
                continue;
            }
            self.settle_other(scene, from, lanes, (place, verdict), packet);
        }
        if scene.routes.is_rebuilding {
            count_forwarded(scene, lanes, not_sent);
        }
        lanes.clear();
    }

    #[inline(never)]
    fn settle_other(
        &mut self,
        scene: &Scene<'_>,
        from: PortId,
        lanes: &Lanes,
        (place, verdict): (usize, Verdict),
        packet: T::Buf,
    ) {
        match verdict {
            Verdict::Return(vipa, port) => {
                if let Err(stuck) = give_back(scene, self.outlets, (vipa, port), packet) {
                    self.stuck(scene, from, lanes, (place, stuck));
                }
            }
            Verdict::ForwardPart(target, entropy) => {
                if let Err(stuck) = forward_part(scene, self.outlets, (target, entropy), packet) {
                    self.stuck(scene, from, lanes, (place, stuck));
                }
            }
            Verdict::Hold => self.hold_or_drop(scene, from, lanes, place, packet, Awaiting::Connection),
            Verdict::HoldSynAck => self.hold_or_drop(scene, from, lanes, place, packet, Awaiting::SynAckReport),
            Verdict::HoldFragment => self.hold_part(scene, from, packet),
            other => self.finish(scene, from, other, packet),
        }
    }

    /// Verdicts after which nothing more is asked.
    fn finish(&mut self, scene: &Scene<'_>, from: PortId, verdict: Verdict, packet: T::Buf) {
        match verdict {
            Verdict::Answer(reply) => self.outlets.answer(scene, from, reply, packet),
            Verdict::ToKernel(kernel) => self.outlets.pass_to_kernel(scene, kernel, packet),
            Verdict::FromKernel(port) => self.outlets.pass_from_kernel(scene, port, packet),
            Verdict::Done(fate) => scene.desk.counters.add(fate, 1),
            Verdict::Forward(_)
            | Verdict::ForwardPart(..)
            | Verdict::Return(..)
            | Verdict::Hold
            | Verdict::HoldSynAck
            | Verdict::HoldFragment => unreachable!("asked for by the caller"),
        }
    }

    #[inline(never)]
    fn stuck(&mut self, scene: &Scene<'_>, from: PortId, lanes: &Lanes, (place, stuck): (usize, Stuck<T::Buf>)) {
        match stuck {
            Stuck::Neighbour(packet) => self.hold_or_drop(scene, from, lanes, place, packet, Awaiting::Neighbour),
            Stuck::TooBig(packet, mtu) => self.outlets.answer_too_big(scene, from, packet, mtu),
            Stuck::LastHop(packet) => self.outlets.answer(scene, from, LocalReply::TimeExceeded, packet),
            Stuck::Drop(reason) => scene.desk.counters.add(Fate::Drop(reason), 1),
        }
    }

    fn hold_or_drop(
        &mut self,
        scene: &Scene<'_>,
        port: PortId,
        lanes: &Lanes,
        place: usize,
        packet: T::Buf,
        awaiting: Awaiting,
    ) {
        let held = match (lanes.connection_of(place), awaiting) {
            (Some((key, kind)), _) => {
                let held = self.hold.push(Held { packet, key, kind, port, since: scene.now }, awaiting);
                scene.desk.vipas.add(key.vipa(), VipaCount::Held, u64::from(held.is_ok()));
                held
            }
            // Only a connection's packets are held; a packet's later parts have none of their own.
            (None, Awaiting::Neighbour) => Err(Reason::NoNeighbour),
            (None, Awaiting::Connection | Awaiting::SynAckReport) => Err(Reason::Orphan),
        };
        match held {
            Ok(()) => scene.desk.counters.add(Count::Held, 1),
            Err(reason) => scene.desk.counters.add(Fate::Drop(reason), 1),
        }
    }

    /// Looks all held packets up again, in order of arrival; reads the clock as often as for packets that arrive.
    #[inline(never)]
    fn retry(&mut self, scene: &mut Scene<'_>, admission: &mut Admission, clock: &impl Fn() -> Moment) {
        for count in 0..self.hold.len() {
            let Some(held) = self.hold.pop() else { return };
            if count > 0 && count % BURST == 0 {
                scene.advance(clock());
            }
            let verdict = decide_again(scene, &held, admission);
            self.settle_held(scene, held, verdict);
        }
    }

    fn settle_held(&mut self, scene: &Scene<'_>, held: Held<T::Buf>, verdict: Verdict) {
        let (counters, vipa) = (&scene.desk.counters, held.key.vipa());
        let expired = self.hold.has_expired(&held, scene.now);
        let syn_ack_expired = Hold::syn_ack_has_expired(&held, scene.now);
        let Held { packet, key, kind, port, since } = held;
        self.learn_held(scene, &packet, verdict);
        let left = match verdict {
            Verdict::Forward(target) => forward(scene, self.outlets, target, packet),
            Verdict::Return(vipa, vipa_port) => give_back(scene, self.outlets, (vipa, vipa_port), packet),
            Verdict::Hold if expired => {
                scene.desk.vipas.add(vipa, VipaCount::Expired, 1);
                Err(Stuck::Drop(Reason::HoldExpired))
            }
            Verdict::HoldSynAck if syn_ack_expired => Err(Stuck::Drop(Reason::SynAck)),
            Verdict::Hold | Verdict::HoldSynAck => {
                return self.hold.put_back(Held { packet, key, kind, port, since });
            }
            other => {
                scene.desk.vipas.add(vipa, VipaCount::Left, 1);
                return self.finish(scene, port, other, packet);
            }
        };
        match left {
            Ok(()) => {
                counters.add(Count::Released, 1);
                scene.desk.vipas.add(vipa, VipaCount::Released, 1);
            }
            Err(Stuck::Neighbour(_)) if expired => counters.add(Fate::Drop(Reason::NoNeighbour), 1),
            Err(Stuck::Neighbour(packet)) => {
                return self.hold.put_back(Held { packet, key, kind, port, since });
            }
            Err(Stuck::TooBig(packet, mtu)) => self.outlets.answer_too_big(scene, port, packet, mtu),
            Err(Stuck::LastHop(packet)) => self.outlets.answer(scene, port, LocalReply::TimeExceeded, packet),
            Err(Stuck::Drop(reason)) => counters.add(Fate::Drop(reason), 1),
        }
        scene.desk.vipas.add(vipa, VipaCount::Left, 1);
    }
}

/// Counts the forwarded packets of a burst for their VIPAs: takeover reports say when the first one was. Only while a VIPA is
/// being rebuilt.
#[cold]
#[inline(never)]
fn count_forwarded(scene: &Scene<'_>, lanes: &Lanes, not_sent: Places) {
    for (index, vipa) in lanes.vipas() {
        let is_forwarded = lanes.ready.places.has(index) || matches!(lanes.verdicts[index], Verdict::Forward(_));
        if is_forwarded && !not_sent.has(index) {
            scene.desk.vipas.add(vipa, VipaCount::Forwarded, 1);
        }
    }
}

/// Where the later parts of a packet go whose first part has this verdict, if they go anywhere.
fn verdict_of_others(first: Verdict, part: &FirstPart) -> Option<Verdict> {
    match first {
        Verdict::Forward(target) => Some(Verdict::ForwardPart(target, part.entropy)),
        Verdict::Return(..) | Verdict::Answer(LocalReply::IcmpEcho) => Some(first),
        _ => None,
    }
}

/// Parts of packets.
impl<T: Tx> Settler<'_, T> {
    /// First parts teach where the others go; one that contradicts what was learnt goes nowhere.
    #[inline(never)]
    fn learn(&mut self, scene: &Scene<'_>, lanes: &mut Lanes) {
        for first in &lanes.firsts {
            let verdict = &mut lanes.verdicts[usize::from(first.packet)];
            let Some(of_others) = verdict_of_others(*verdict, &first.part) else { continue };
            let lesson = Lesson { verdict: of_others, first_end: first.part.end };
            if !self.fragments.learn(first.part.key, lesson, scene.now) {
                *verdict = Verdict::drop(Reason::FragmentBad);
            }
        }
    }

    /// A first part that was held teaches when it goes on.
    fn learn_held(&mut self, scene: &Scene<'_>, packet: &T::Buf, verdict: Verdict) {
        if matches!(verdict, Verdict::Forward(_) | Verdict::Return(..))
            && let Some(first) = first_part(packet)
            && let Some(verdict) = verdict_of_others(verdict, &first)
        {
            self.fragments.learn(first.key, Lesson { verdict, first_end: first.end }, scene.now);
        }
    }

    fn hold_part(&mut self, scene: &Scene<'_>, port: PortId, packet: T::Buf) {
        let counters = &scene.desk.counters;
        let Some((key, span)) = crate::classify::later_part(&packet) else {
            return counters.add(Fate::Drop(Reason::Fragment), 1);
        };
        match self.fragments.wait(key, span, packet, port, scene.now) {
            Ok(()) => counters.add(Count::Held, 1),
            Err(_) => counters.add(Fate::Drop(Reason::Fragment), 1),
        }
    }

    #[inline(never)]
    fn release_parts(&mut self, scene: &Scene<'_>) {
        let counters = &scene.desk.counters;
        let mut looked = 0;
        while let Some(released) = self.fragments.release(&mut looked, scene.now) {
            let left = match released.verdict {
                Ok(Verdict::ForwardPart(target, entropy)) => {
                    forward_part(scene, self.outlets, (target, entropy), released.packet)
                }
                Ok(verdict @ Verdict::Answer(_)) => {
                    self.finish(scene, released.port, verdict, released.packet);
                    continue;
                }
                Ok(Verdict::Return(vipa, port)) => give_back(scene, self.outlets, (vipa, port), released.packet),
                Ok(_) => Err(Stuck::Drop(Reason::Fragment)),
                Err(reason) => Err(Stuck::Drop(reason)),
            };
            match left {
                Ok(()) => counters.add(Count::Released, 1),
                Err(Stuck::Neighbour(_)) => counters.add(Fate::Drop(Reason::NoNeighbour), 1),
                Err(Stuck::TooBig(packet, mtu)) => self.outlets.answer_too_big(scene, released.port, packet, mtu),
                Err(Stuck::LastHop(packet)) => {
                    self.outlets.answer(scene, released.port, LocalReply::TimeExceeded, packet);
                }
                Err(Stuck::Drop(reason)) => counters.add(Fate::Drop(reason), 1),
            }
        }
    }
}
