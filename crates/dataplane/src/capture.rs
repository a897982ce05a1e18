//! A worker during a packet capture.
//!
//! The receive queues are moved out of the worker and kept here, so that its turns find none. Arriving packets are
//! processed in the housekeeping, which then follows every turn: the same steps as in a turn, one packet at a time. The
//! change of the counters by a packet is its fate, and the packets that wait for the ports are its results. Without a
//! capture nothing of this is touched: the check for one is in the worker's housekeeping, and costs packets nothing.

use std::{iter, mem, sync::Arc, time::Duration};

use arrayvec::ArrayVec;
use vipa_flow::Tick;
use vipa_handoff::{CAPTURED_BYTES, Capture, CaptureRecord, CapturedFate, Count, Counters, Fate};
use vipa_model::{Moment, PortId};
use vipa_packet::{HeaderSums, PacketBuf};

use crate::{
    BURST, Rx, RxPort, TurnContext, Tx,
    classify::{ArrivedBurst, classify},
    decide::{decide, decide_again},
    hold::HoldQueue,
    overload::Overload,
    tx_ports::TxPorts,
    worker::{BURSTS_A_TURN, ReceivedBurst, VerdictApplier, Worker},
};

/// A capture under way, and the queues that are processed for it.
pub(crate) struct Capturing<R: Rx> {
    capture: Arc<Capture>,
    pub(crate) rx_ports: Vec<RxPort<R>>,
    overloads: Vec<Overload>,
    /// Held packets, so that they get their fates here, too.
    hold: HoldQueue<R::Buf>,
}

impl<R: Rx, T: Tx<Buf = R::Buf>> Worker<R, T> {
    /// Begins or ends the capture in the routes, and takes a turn while there is one. Returns whether there is one.
    pub(crate) fn follow_capture(&mut self, clock: &impl Fn() -> Moment) -> bool {
        let now = clock();
        let wanted = self.routes.snapshot().capture.as_ref().filter(|capture| !capture.is_over(now));
        let is_same = |under_way: &Capturing<R>| wanted.is_some_and(|wanted| Arc::ptr_eq(wanted, &under_way.capture));
        if !self.capturing.as_deref().is_some_and(is_same) {
            let wanted = wanted.cloned();
            self.end_capture();
            self.capturing = wanted.map(|capture| {
                let (rx_ports, overloads) = (mem::take(&mut self.rx_ports), mem::take(&mut self.overloads));
                let hold = mem::replace(&mut self.hold, HoldQueue::new(0, Duration::ZERO));
                Box::new(Capturing { capture, rx_ports, overloads, hold })
            });
        }
        let Some(mut capturing) = self.capturing.take() else { return false };
        self.turn_captured(&mut capturing, clock);
        self.capturing = Some(capturing);
        true
    }

    /// Returns the queues to the worker.
    pub(crate) fn end_capture(&mut self) {
        if let Some(capturing) = self.capturing.take() {
            let Capturing { capture: _, rx_ports, overloads, hold } = *capturing;
            (self.rx_ports, self.overloads, self.hold) = (rx_ports, overloads, hold);
        }
    }

    /// A turn, one packet at a time.
    fn turn_captured(&mut self, capturing: &mut Capturing<R>, clock: &impl Fn() -> Moment) {
        let Capturing { capture, rx_ports, overloads, hold } = capturing;
        let (shared, now) = (Arc::clone(&self.shared), clock());
        let counters = &shared.counters;
        let flows = Arc::clone(&self.flows);
        let routes = self.routes.snapshot();
        let mut context = TurnContext { routes, flows: &flows, shared: &shared, now, tick: Tick::from(now) };
        self.tx_ports.transmit(counters);
        for _ in 0..hold.len() {
            let Some(held) = hold.pop() else { break };
            let (port, frame) = (held.port, FrameCopy::of(held.packet.bytes()));
            let before = Before::of(counters);
            let verdict = decide_again(&context, &held, &mut self.admission);
            let mut applier = VerdictApplier { hold, fragments: &mut self.fragments, tx_ports: &mut self.tx_ports };
            applier.apply_held(&context, held, verdict);
            // A packet that is held further has no fate yet.
            before.record(capture, (counters, &mut self.tx_ports), (context.now, port, frame), false);
        }
        let mut received = 0;
        for (rx_port, overload) in rx_ports.iter_mut().zip(overloads) {
            for _ in 0..BURSTS_A_TURN {
                let mut packets: ArrayVec<R::Buf, BURST> = ArrayVec::new();
                rx_port.rx.burst(&mut packets);
                let arrived = packets.len();
                received += arrived;
                let mut budget = overload.new_flow_budget(arrived, context.now);
                context.advance(clock());
                for packet in packets {
                    let frame = FrameCopy::of(packet.bytes());
                    let before = Before::of(counters);
                    let [one, other] = &mut self.bursts;
                    let ReceivedBurst { packets, batch } = one;
                    packets.push(packet);
                    batch.set_new_flow_budget(budget);
                    let burst = ArrivedBurst { port: rx_port.port, sums: HeaderSums::Unverified, packets };
                    let fragments = &mut self.fragments;
                    classify(&context, &burst, fragments, (self.vectors, &mut *self.columns, &mut *batch));
                    decide(&context, (packets, batch), &mut other.batch, &mut self.admission);
                    budget = self.admission.new_flows_left();
                    if batch.have_established() {
                        overload.saw_established(context.now);
                    }
                    let mut applier = VerdictApplier { hold, fragments, tx_ports: &mut self.tx_ports };
                    applier.apply(&context, rx_port.port, packets, batch);
                    before.record(capture, (counters, &mut self.tx_ports), (context.now, rx_port.port, frame), true);
                }
                if arrived < BURST {
                    break;
                }
            }
        }
        counters.add(Count::Received, received as u64);
        counters.set(Count::Holding, (hold.len() + self.fragments.waiting()) as u64);
    }
}

/// The counters before a packet.
struct Before {
    fates: Vec<u64>,
    held: u64,
}

impl Before {
    fn of(counters: &Counters) -> Self {
        Self { fates: Fate::all().map(|fate| counters.read(fate)).collect(), held: counters.read(Count::Held) }
    }

    /// Sends the results of the packet, and records them and the packet. `is_new`: it has just arrived, so that it has
    /// a fate or is held.
    fn record<T: Tx>(
        self,
        capture: &Capture,
        (counters, tx_ports): (&Counters, &mut TxPorts<T>),
        (at, port, frame): (Moment, PortId, FrameCopy),
        is_new: bool,
    ) {
        let outgoing: Vec<(PortId, FrameCopy)> =
            tx_ports.waiting().map(|(port, frame)| (port, FrameCopy::of(frame))).collect();
        tx_ports.transmit(counters);
        let changed: Vec<Fate> = Fate::all()
            .zip(&self.fates)
            .filter(|(fate, before)| counters.read(*fate) > **before)
            .map(|(fate, _)| fate)
            .collect();
        let fate = match (&changed[..], counters.read(Count::Held) > self.held) {
            ([fate], false) => CapturedFate::Fate(*fate),
            ([], true) => CapturedFate::Held,
            ([], false) if !is_new => return,
            _ => CapturedFate::Unknown,
        };
        let is_meant =
            capture.concerns(&frame.bytes) || outgoing.iter().any(|(_, frame)| capture.concerns(&frame.bytes));
        if !capture.has_fate(fate) || !is_meant {
            return;
        }
        let record = |port, is_outgoing, FrameCopy { length, bytes }| CaptureRecord {
            at,
            port,
            is_outgoing,
            fate,
            length,
            bytes,
        };
        let outgoing = outgoing.into_iter().map(|(port, frame)| record(port, true, frame));
        for packet in iter::once(record(port, false, frame)).chain(outgoing) {
            // The capture counts what it has no room for.
            let _ = capture.record(packet);
        }
    }
}

/// A frame's length, and its beginning.
struct FrameCopy {
    length: u32,
    bytes: Box<[u8]>,
}

impl FrameCopy {
    fn of(frame: &[u8]) -> Self {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        Self { length, bytes: frame[..frame.len().min(CAPTURED_BYTES)].into() }
    }
}
