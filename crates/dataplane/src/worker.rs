//! The worker's loop.

use std::{sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use vipa_flow::{
    AgeLimits, Cursor, FlowTable, Key, Tick,
    vectors::{Vectors, Work},
};
use vipa_handoff::{Count, Fate, Flows, LocalReply, Reason, Routes, VipaCount, WorkerChannel, WorkerShared};
use vipa_model::{Moment, PortId, Stance};
use vipa_packet::HeaderColumns;
use vipa_sync::{Flag, Reader};

use crate::{
    BURST, IdlePolicy, Rx, TurnContext, Tx,
    batch::{Batch, Verdict},
    capture::Capturing,
    classify::{ArrivedBurst, classify, first_part},
    decide::{Admission, decide, decide_again},
    fragments::{FirstPart, FragmentMapping, Fragments, HELD_FRAGMENTS},
    hold::{Awaiting, HeldPacket, HoldQueue},
    idle::{Duty, Idle, Rest},
    mask::BurstMask,
    overload::Overload,
    path::{NotForwarded, Prepared, forward, forward_part, return_to_client},
    tx_ports::TxPorts,
};

/// Turns between two housekeepings under load; without load they come by [`HOUSEKEEP_TIME`].
const HOUSEKEEP_TURNS: u32 = 256;
const HOUSEKEEP_TIME: Duration = Duration::from_millis(1);
/// Interval at which all held packets are looked up again; also done at once when the routes change.
const HOLD_RETRY: Duration = Duration::from_millis(1);
/// Entries in a bucket of the table.
const BUCKET: usize = 4;
/// Time in which ageing walks the whole table once.
const AGEING_ROUND: Duration = Duration::from_secs(10);
/// Buckets that one housekeeping ages at most, so that the ageing of a large table never keeps packets waiting.
const AGEING_MOST: usize = 4096;
/// Bursts taken from one queue in a turn at most, so that the other queues have theirs and the time is not too old.
pub(crate) const BURSTS_A_TURN: usize = 8;
/// Frames of control sent in one turn at most, so that many do not keep packets waiting.
const FRAMES_A_TURN: usize = BURST;

/// Limits of one worker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Packets held at once. A port's buffer pool must have [`waiting_packets`](Self::waiting_packets) for each worker,
    /// in addition to those of its queues.
    pub held_packets: usize,
    /// Longest time a packet is held.
    pub held_for: Duration,
    /// How long a silent connection stays in the table, by state.
    pub ages: AgeLimits,
    /// Answers a second to pings, orphans and packets that are too big, of each worker.
    pub answers_per_second: u32,
    /// By `PortId`: this worker's packets a second to a kernel interface; `None` for any other port.
    pub kernel_per_second: Vec<Option<u32>>,
}

impl Limits {
    /// Packets that may wait at a worker, for whatever reason.
    #[must_use]
    pub fn waiting_packets(&self) -> usize {
        self.held_packets + HELD_FRAGMENTS
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
pub struct RxPort<R> {
    pub port: PortId,
    pub rx: R,
}

/// One worker: the receive queues it polls, a transmit queue on every port, and its end of the channel.
pub struct Worker<R: Rx, T: Tx<Buf = R::Buf>> {
    index: usize,
    pub(crate) routes: Reader<Routes>,
    pub(crate) shared: Arc<WorkerShared>,
    stop: Arc<Flag>,
    pub(crate) flows: Arc<Flows>,
    limits: Limits,
    pub(crate) rx_ports: Vec<RxPort<R>>,
    /// One for each receive queue.
    pub(crate) overloads: Vec<Overload>,
    pub(crate) tx_ports: TxPorts<T>,
    pub(crate) columns: Box<HeaderColumns>,
    /// The burst that is being classified, and the one before it, whose lookups have begun. Both are empty between
    /// turns.
    pub(crate) bursts: [ReceivedBurst<R::Buf>; 2],
    pub(crate) hold: HoldQueue<R::Buf>,
    pub(crate) fragments: Fragments<R::Buf, Verdict>,
    pub(crate) admission: Admission,
    /// This worker's parts of the tables, for ageing.
    rounds: Rounds,
    /// The generation of the routes that limits were last taken from.
    limited_by: u64,
    /// Turns since the last housekeeping.
    turns: u32,
    housekept: Moment,
    /// When the last turn began, and the packets that it brought.
    last_turn: (Moment, usize),
    /// When held packets were last looked up, and by which generation of the routes.
    retried: (Moment, u64),
    duty: Duty,
    pub(crate) vectors: Vectors,
    /// Set while an operator captures packets; then it has the receive queues, and `rx_ports` is empty.
    pub(crate) capturing: Option<Box<Capturing<R>>>,
}

impl<R: Rx, T: Tx<Buf = R::Buf>> Worker<R, T> {
    /// `tx_ports` has one queue for each port of the routes, by `PortId`: a target may be reached through any.
    #[must_use]
    pub fn new(
        channel: WorkerChannel,
        flows: Arc<Flows>,
        rx_ports: Vec<RxPort<R>>,
        tx_ports: Vec<T>,
        limits: Limits,
    ) -> Self {
        let WorkerChannel { index, workers, routes, shared, stop } = channel;
        Self {
            index,
            routes,
            shared,
            stop,
            overloads: vec![Overload::default(); rx_ports.len()],
            rx_ports,
            tx_ports: TxPorts::new(tx_ports, &limits.kernel_per_second, limits.answers_per_second),
            columns: Box::default(),
            bursts: [ReceivedBurst::new(), ReceivedBurst::new()],
            hold: HoldQueue::new(limits.held_packets, limits.held_for),
            fragments: Fragments::new(),
            admission: Admission::new(workers),
            rounds: Rounds { ipv4: Cursor::new(index, workers), ipv6: Cursor::new(index, workers), workers },
            limited_by: u64::MAX,
            limits,
            flows,
            turns: 0,
            housekept: Moment::ZERO,
            last_turn: (Moment::ZERO, 0),
            retried: (Moment::ZERO, 0),
            duty: Duty::Backup,
            vectors: Vectors::of_this_processor(),
            capturing: None,
        }
    }

    /// Runs turns until control stops the worker, resting between turns as `policy` states. `clock` is the clock by
    /// which leases are set.
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
    /// Reads `clock` at the start and before it decides about each burst: a worker that the machine stops in the middle
    /// of a turn notices in its next burst that a lease has expired.
    pub fn turn(&mut self, clock: impl Fn() -> Moment) -> usize {
        self.vectors.run(Turn { worker: self, clock })
    }

    #[inline(always)]
    fn turn_wide(&mut self, clock: impl Fn() -> Moment) -> usize {
        let routes = self.routes.snapshot();
        let now = clock();
        self.shared.load.add(self.last_turn.1, now.since(self.last_turn.0));
        let mut context = TurnContext { routes, flows: &self.flows, shared: &self.shared, now, tick: Tick::from(now) };
        let (began, mut received) = (now, 0);
        let columns = &mut *self.columns;
        let mut settler =
            VerdictApplier { hold: &mut self.hold, fragments: &mut self.fragments, tx_ports: &mut self.tx_ports };
        if !settler.hold.is_empty() && retry_is_due(&mut self.retried, &context) {
            settler.retry(&mut context, &mut self.admission, &clock);
        }
        for (rx_port, overload) in self.rx_ports.iter_mut().zip(&mut self.overloads) {
            // The lookups of one burst begin while the previous one is decided.
            let [one, other] = &mut self.bursts;
            let (mut current, mut before) = (one, other);
            let mut more = BURSTS_A_TURN;
            while more > 0 || !before.packets.is_empty() {
                if more > 0 {
                    rx_port.rx.burst(&mut current.packets);
                    let arrived = current.packets.len();
                    received += arrived;
                    more = if arrived == BURST { more - 1 } else { 0 };
                    current.batch.set_new_flow_budget(overload.new_flow_budget(arrived, context.now));
                    let burst = ArrivedBurst {
                        port: rx_port.port,
                        sums: rx_port.rx.header_sums(&current.packets),
                        packets: &current.packets,
                    };
                    classify(&context, &burst, settler.fragments, (self.vectors, &mut *columns, &mut current.batch));
                }
                let ReceivedBurst { packets, batch } = &mut *before;
                if !packets.is_empty() {
                    context.advance(clock());
                }
                decide(&context, (packets, batch), &mut current.batch, &mut self.admission);
                if batch.have_established() {
                    overload.saw_established(context.now);
                }
                settler.apply(&context, rx_port.port, packets, batch);
                std::mem::swap(&mut current, &mut before);
            }
        }
        if settler.fragments.waiting() > 0 {
            settler.release_parts(&context);
        }
        let now = context.now;
        self.tx_ports.transmit(&self.shared.counters);
        self.shared.counters.add(Count::Received, received as u64);
        self.shared.counters.set(Count::Holding, (self.hold.len() + self.fragments.waiting()) as u64);
        self.last_turn = (began, received);
        self.send_frames();
        self.housekeep_sometimes(now, &clock);
        received
    }

    /// Worker 0 sends control's frames: announcements, and questions for neighbours.
    #[inline]
    fn send_frames(&mut self) {
        if self.index != 0 || self.shared.frames.is_empty() {
            return;
        }
        for _ in 0..FRAMES_A_TURN {
            let Some(frame) = self.shared.frames.try_receive() else { break };
            if self.tx_ports.compose(frame.port(), frame.bytes()) {
                self.shared.counters.add(Count::FrameSent, 1);
                self.shared.counters.add(Count::Sent, 1);
            } else {
                self.shared.counters.add(Count::FrameRefused, 1);
            }
        }
    }

    #[inline]
    fn housekeep_sometimes(&mut self, now: Moment, clock: &impl Fn() -> Moment) {
        self.turns += 1;
        self.shared.heartbeat.beat();
        if self.turns >= HOUSEKEEP_TURNS || now.since(self.housekept) >= HOUSEKEEP_TIME {
            self.housekeep(now, clock);
        }
    }

    #[inline(never)]
    fn housekeep(&mut self, now: Moment, clock: &impl Fn() -> Moment) {
        let routes = self.routes.snapshot();
        let owns = routes.vipas.iter().any(|vipa| vipa.stance != Stance::Standby);
        self.duty = if owns { Duty::Owner } else { Duty::Backup };
        if routes.generation != self.limited_by {
            self.limited_by = routes.generation;
            self.admission.limit(&routes.vipas);
        }
        self.routes.quiescent();
        self.age(now);
        // While packets are captured the worker keeps house after every turn, and takes them then.
        self.turns = if self.follow_capture(clock) { HOUSEKEEP_TURNS } else { 0 };
        self.housekept = now;
    }

    /// Ages the share of its buckets that the time since the last housekeeping is of a round.
    fn age(&mut self, now: Moment) {
        let passed = now.since(self.housekept).min(AGEING_ROUND);
        let share = passed.as_secs_f64() / AGEING_ROUND.as_secs_f64() / self.rounds.workers as f64;
        let round = Round { share, now: Tick::from(now), ages: &self.limits.ages, routes: self.routes.snapshot() };
        let aged =
            round.age(&self.flows.ipv4, &mut self.rounds.ipv4) + round.age(&self.flows.ipv6, &mut self.rounds.ipv6);
        self.shared.counters.add(Count::FlowAged, aged);
    }

    /// At the end no packet is left without a fate.
    fn give_up_held(&mut self) {
        self.end_capture();
        while self.hold.pop().is_some() {
            self.shared.counters.add(Fate::Drop(Reason::HoldExpired), 1);
        }
        self.shared.counters.add(Fate::Drop(Reason::Fragment), self.fragments.give_up() as u64);
        self.shared.counters.set(Count::Holding, 0);
    }

    /// A receive queue, for tests that act as the network.
    pub fn rx(&mut self, rx_port: usize) -> Option<&mut R> {
        let rx_ports = self.capturing.as_mut().map_or(&mut self.rx_ports, |capturing| &mut capturing.rx_ports);
        rx_ports.get_mut(rx_port).map(|rx_port| &mut rx_port.rx)
    }

    /// A port's transmit queue, for tests that act as the network.
    pub fn tx(&mut self, port: PortId) -> Option<&mut T> {
        self.tx_ports.queue(port)
    }
}

/// A burst, and what is known about each of its packets.
pub(crate) struct ReceivedBurst<B> {
    pub(crate) packets: ArrayVec<B, BURST>,
    pub(crate) batch: Batch,
}

impl<B> ReceivedBurst<B> {
    fn new() -> Self {
        Self { packets: ArrayVec::new(), batch: Batch::new() }
    }
}

/// A turn, as work for the processor's vector instructions.
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

/// Positions of a worker's ageing, one in each table.
struct Rounds {
    ipv4: Cursor,
    ipv6: Cursor,
    workers: usize,
}

/// A stretch of ageing.
struct Round<'a> {
    /// Share of each table.
    share: f64,
    now: Tick,
    ages: &'a AgeLimits,
    routes: &'a Routes,
}

impl Round<'_> {
    /// Ages its share of a table; returns how many connections were removed.
    fn age<K: Key>(&self, flows: &FlowTable<K>, cursor: &mut Cursor) -> u64 {
        // At least one bucket, so that a small table is aged too.
        let buckets = (((flows.slots() / BUCKET) as f64 * self.share) as usize).clamp(1, AGEING_MOST);
        let is_away = |target| self.routes.is_away(target);
        flows.age_without(cursor, buckets, self.now, self.ages, is_away).removed.total()
    }
}

fn retry_is_due(retried: &mut (Moment, u64), context: &TurnContext<'_>) -> bool {
    let due = context.now.since(retried.0) >= HOLD_RETRY || context.routes.generation != retried.1;
    if due {
        *retried = (context.now, context.routes.generation);
    }
    due
}

/// Applies verdicts to packets.
pub(crate) struct VerdictApplier<'w, T: Tx> {
    pub(crate) hold: &'w mut HoldQueue<T::Buf>,
    pub(crate) fragments: &'w mut Fragments<T::Buf, Verdict>,
    pub(crate) tx_ports: &'w mut TxPorts<T>,
}

impl<T: Tx> VerdictApplier<'_, T> {
    /// Applies the verdicts of a burst and clears the batch.
    #[inline(always)]
    pub(crate) fn apply(
        &mut self,
        context: &TurnContext<'_>,
        from: PortId,
        burst: &mut ArrayVec<T::Buf, BURST>,
        batch: &mut Batch,
    ) {
        if !batch.firsts.is_empty() {
            self.record(context, batch);
        }
        let Prepared { packets, port } = batch.prepared;
        let first = packets.leading();
        let mut not_sent = BurstMask::NONE;
        self.tx_ports.send_first(&context.shared.counters, port, burst, first);
        for (index, packet) in (first..).zip(burst.drain(..)) {
            if packets.has(index) {
                if self.tx_ports.send(&context.shared.counters, port, packet, Fate::Forward).is_err() {
                    context.shared.counters.add(Fate::Drop(Reason::NoRoute), 1);
                }
                continue;
            }
            let verdict = batch.verdicts[index];
            if let Verdict::Forward(target) = verdict {
                match forward(context, self.tx_ports, target, packet) {
                    Ok(()) => {}
                    Err(not_forwarded) => {
                        not_sent.add(index);
                        self.apply_not_forwarded(context, from, batch, (index, not_forwarded));
                    }
                }
                continue;
            }
            self.apply_other(context, from, batch, (index, verdict), packet);
        }
        if context.routes.is_rebuilding {
            count_forwarded(context, batch, not_sent);
        }
        batch.clear();
    }

    #[inline(never)]
    fn apply_other(
        &mut self,
        context: &TurnContext<'_>,
        from: PortId,
        batch: &Batch,
        (index, verdict): (usize, Verdict),
        packet: T::Buf,
    ) {
        match verdict {
            Verdict::Return(vipa, port) => {
                if let Err(not_forwarded) = return_to_client(context, self.tx_ports, (vipa, port), packet) {
                    self.apply_not_forwarded(context, from, batch, (index, not_forwarded));
                }
            }
            Verdict::ForwardPart(target, entropy) => {
                if let Err(not_forwarded) = forward_part(context, self.tx_ports, (target, entropy), packet) {
                    self.apply_not_forwarded(context, from, batch, (index, not_forwarded));
                }
            }
            Verdict::HoldQueue => self.hold_or_drop(context, from, batch, index, packet, Awaiting::Connection),
            Verdict::HoldSynAck => self.hold_or_drop(context, from, batch, index, packet, Awaiting::SynAckReport),
            Verdict::HoldFragment => self.hold_part(context, from, packet),
            other => self.finish(context, from, other, packet),
        }
    }

    /// Applies a verdict that needs no further decision.
    fn finish(&mut self, context: &TurnContext<'_>, from: PortId, verdict: Verdict, packet: T::Buf) {
        match verdict {
            Verdict::Answer(reply) => self.tx_ports.answer(context, from, reply, packet),
            Verdict::ToKernel(kernel) => self.tx_ports.pass_to_kernel(context, kernel, packet),
            Verdict::FromKernel(port) => self.tx_ports.pass_from_kernel(context, port, packet),
            Verdict::Done(fate) => context.shared.counters.add(fate, 1),
            Verdict::Forward(_)
            | Verdict::ForwardPart(..)
            | Verdict::Return(..)
            | Verdict::HoldQueue
            | Verdict::HoldSynAck
            | Verdict::HoldFragment => unreachable!("asked for by the caller"),
        }
    }

    #[inline(never)]
    fn apply_not_forwarded(
        &mut self,
        context: &TurnContext<'_>,
        from: PortId,
        batch: &Batch,
        (index, not_forwarded): (usize, NotForwarded<T::Buf>),
    ) {
        match not_forwarded {
            NotForwarded::Neighbour(packet) => {
                self.hold_or_drop(context, from, batch, index, packet, Awaiting::Neighbour)
            }
            NotForwarded::TooBig(packet, mtu) => self.tx_ports.answer_too_big(context, from, packet, mtu),
            NotForwarded::LastHop(packet) => self.tx_ports.answer(context, from, LocalReply::TimeExceeded, packet),
            NotForwarded::Drop(reason) => context.shared.counters.add(Fate::Drop(reason), 1),
        }
    }

    fn hold_or_drop(
        &mut self,
        context: &TurnContext<'_>,
        port: PortId,
        batch: &Batch,
        index: usize,
        packet: T::Buf,
        awaiting: Awaiting,
    ) {
        let held = match (batch.connection_of(index), awaiting) {
            (Some((key, kind)), _) => {
                let held = self.hold.push(HeldPacket { packet, key, kind, port, since: context.now }, awaiting);
                context.shared.vipas.add(key.vipa(), VipaCount::Held, u64::from(held.is_ok()));
                held
            }
            // Only a connection's packets are held; a later fragment has no connection of its own.
            (None, Awaiting::Neighbour) => Err(Reason::NoNeighbour),
            (None, Awaiting::Connection | Awaiting::SynAckReport) => Err(Reason::Orphan),
        };
        match held {
            Ok(()) => context.shared.counters.add(Count::Held, 1),
            Err(reason) => context.shared.counters.add(Fate::Drop(reason), 1),
        }
    }

    /// Looks all held packets up again, in order of arrival; reads the clock as often as for packets that arrive.
    #[inline(never)]
    fn retry(&mut self, context: &mut TurnContext<'_>, admission: &mut Admission, clock: &impl Fn() -> Moment) {
        for count in 0..self.hold.len() {
            let Some(held) = self.hold.pop() else { return };
            if count > 0 && count % BURST == 0 {
                context.advance(clock());
            }
            let verdict = decide_again(context, &held, admission);
            self.apply_held(context, held, verdict);
        }
    }

    pub(crate) fn apply_held(&mut self, context: &TurnContext<'_>, held: HeldPacket<T::Buf>, verdict: Verdict) {
        let (counters, vipa) = (&context.shared.counters, held.key.vipa());
        let expired = self.hold.has_expired(&held, context.now);
        let syn_ack_expired = HoldQueue::syn_ack_has_expired(&held, context.now);
        let HeldPacket { packet, key, kind, port, since } = held;
        self.record_held(context, &packet, verdict);
        let left = match verdict {
            Verdict::Forward(target) => forward(context, self.tx_ports, target, packet),
            Verdict::Return(vipa, vipa_port) => return_to_client(context, self.tx_ports, (vipa, vipa_port), packet),
            Verdict::HoldQueue if expired => {
                context.shared.vipas.add(vipa, VipaCount::Expired, 1);
                Err(NotForwarded::Drop(Reason::HoldExpired))
            }
            Verdict::HoldSynAck if syn_ack_expired => Err(NotForwarded::Drop(Reason::SynAck)),
            Verdict::HoldQueue | Verdict::HoldSynAck => {
                return self.hold.put_back(HeldPacket { packet, key, kind, port, since });
            }
            other => {
                context.shared.vipas.add(vipa, VipaCount::Left, 1);
                return self.finish(context, port, other, packet);
            }
        };
        match left {
            Ok(()) => {
                counters.add(Count::Released, 1);
                context.shared.vipas.add(vipa, VipaCount::Released, 1);
            }
            Err(NotForwarded::Neighbour(_)) if expired => counters.add(Fate::Drop(Reason::NoNeighbour), 1),
            Err(NotForwarded::Neighbour(packet)) => {
                return self.hold.put_back(HeldPacket { packet, key, kind, port, since });
            }
            Err(NotForwarded::TooBig(packet, mtu)) => self.tx_ports.answer_too_big(context, port, packet, mtu),
            Err(NotForwarded::LastHop(packet)) => self.tx_ports.answer(context, port, LocalReply::TimeExceeded, packet),
            Err(NotForwarded::Drop(reason)) => counters.add(Fate::Drop(reason), 1),
        }
        context.shared.vipas.add(vipa, VipaCount::Left, 1);
    }
}

/// Counts the forwarded packets of a burst for their VIPAs, because takeover reports state when the first one was. Only
/// while a VIPA is being rebuilt.
#[cold]
#[inline(never)]
fn count_forwarded(context: &TurnContext<'_>, batch: &Batch, not_sent: BurstMask) {
    for (index, vipa) in batch.vipas() {
        let is_forwarded = batch.prepared.packets.has(index) || matches!(batch.verdicts[index], Verdict::Forward(_));
        if is_forwarded && !not_sent.has(index) {
            context.shared.vipas.add(vipa, VipaCount::Forwarded, 1);
        }
    }
}

/// Where the later fragments of a packet go whose first fragment has this verdict, if they go anywhere.
fn verdict_of_others(first: Verdict, part: &FirstPart) -> Option<Verdict> {
    match first {
        Verdict::Forward(target) => Some(Verdict::ForwardPart(target, part.entropy)),
        Verdict::Return(..) | Verdict::Answer(LocalReply::IcmpEcho) => Some(first),
        _ => None,
    }
}

/// Fragments.
impl<T: Tx> VerdictApplier<'_, T> {
    /// Records where later fragments go; a first fragment that contradicts an earlier one is dropped.
    #[inline(never)]
    fn record(&mut self, context: &TurnContext<'_>, batch: &mut Batch) {
        for first in &batch.firsts {
            let verdict = &mut batch.verdicts[usize::from(first.packet)];
            let Some(of_others) = verdict_of_others(*verdict, &first.part) else { continue };
            let mapping = FragmentMapping { verdict: of_others, first_end: first.part.end };
            if !self.fragments.record(first.part.key, mapping, context.now) {
                *verdict = Verdict::drop(Reason::FragmentBad);
            }
        }
    }

    /// A held first fragment makes its mapping when it is forwarded.
    fn record_held(&mut self, context: &TurnContext<'_>, packet: &T::Buf, verdict: Verdict) {
        if matches!(verdict, Verdict::Forward(_) | Verdict::Return(..))
            && let Some(first) = first_part(packet)
            && let Some(verdict) = verdict_of_others(verdict, &first)
        {
            self.fragments.record(first.key, FragmentMapping { verdict, first_end: first.end }, context.now);
        }
    }

    fn hold_part(&mut self, context: &TurnContext<'_>, port: PortId, packet: T::Buf) {
        let counters = &context.shared.counters;
        let Some((key, span)) = crate::classify::later_part(&packet) else {
            return counters.add(Fate::Drop(Reason::Fragment), 1);
        };
        match self.fragments.wait(key, span, packet, port, context.now) {
            Ok(()) => counters.add(Count::Held, 1),
            Err(_) => counters.add(Fate::Drop(Reason::Fragment), 1),
        }
    }

    #[inline(never)]
    fn release_parts(&mut self, context: &TurnContext<'_>) {
        let counters = &context.shared.counters;
        let mut looked = 0;
        while let Some(released) = self.fragments.release(&mut looked, context.now) {
            let left = match released.verdict {
                Ok(Verdict::ForwardPart(target, entropy)) => {
                    forward_part(context, self.tx_ports, (target, entropy), released.packet)
                }
                Ok(verdict @ Verdict::Answer(_)) => {
                    self.finish(context, released.port, verdict, released.packet);
                    continue;
                }
                Ok(Verdict::Return(vipa, port)) => {
                    return_to_client(context, self.tx_ports, (vipa, port), released.packet)
                }
                Ok(_) => Err(NotForwarded::Drop(Reason::Fragment)),
                Err(reason) => Err(NotForwarded::Drop(reason)),
            };
            match left {
                Ok(()) => counters.add(Count::Released, 1),
                Err(NotForwarded::Neighbour(_)) => counters.add(Fate::Drop(Reason::NoNeighbour), 1),
                Err(NotForwarded::TooBig(packet, mtu)) => {
                    self.tx_ports.answer_too_big(context, released.port, packet, mtu)
                }
                Err(NotForwarded::LastHop(packet)) => {
                    self.tx_ports.answer(context, released.port, LocalReply::TimeExceeded, packet);
                }
                Err(NotForwarded::Drop(reason)) => counters.add(Fate::Drop(reason), 1),
            }
        }
    }
}
