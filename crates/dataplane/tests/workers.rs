//! Several workers on one connection table, and a change of their number.

mod support;

use std::sync::Arc;

use support::*;
use vipa_dataplane::{
    Limits, RxPort, Worker,
    bench::{Bench, HeapRx, HeapTx},
};
use vipa_handoff::{ControlChannel, Count, Fate};
use vipa_model::PortId;
use vipa_packet::{HeapPacket, TcpFlags, build::Builder};

const CONNECTIONS: u16 = 500;

type Workers = Vec<Worker<HeapRx, HeapTx>>;

/// `count` workers with the bench's routes and its connection table.
fn workers(bench: &mut Bench, count: usize) -> (ControlChannel, Workers) {
    let (control, channels) = vipa_handoff::open(Arc::new(bench.world.routes()), count);
    let worker = |channel| {
        let rx_ports = vec![RxPort { port: PortId(0), rx: HeapRx::default() }];
        Worker::new(channel, Arc::clone(&bench.flows), rx_ports, vec![HeapTx::default()], Limits::default())
    };
    let workers = channels.into_iter().map(worker).collect();
    (control, workers)
}

/// Delivers a packet to that worker's queue.
fn turn(bench: &Bench, worker: &mut Worker<HeapRx, HeapTx>, packet: &Builder) -> Vec<HeapPacket> {
    worker.rx(0).expect("one rx_port").arriving.push_back(packet.build());
    worker.turn(|| bench.now);
    std::mem::take(&mut worker.tx(PortId(0)).expect("one port").sent)
}

/// The target to which a frame was sent.
fn destination(frames: &[HeapPacket]) -> [u8; 6] {
    assert_eq!(frames.len(), 1, "one packet in, one out");
    *frames[0].as_ref().first_chunk().expect("an Ethernet header")
}

#[test]
fn workers_share_the_table_and_their_number_changes_without_a_flush() {
    let mut bench = bench();
    let (control, mut two) = workers(&mut bench, 2);
    let targets: Vec<[u8; 6]> = (0..CONNECTIONS)
        .map(|n| destination(&turn(&bench, &mut two[usize::from(n % 2)], &segment(1_000 + n).syn())))
        .collect();
    let carries_on = |bench: &Bench, workers: &mut Workers, shift: u16| {
        for (n, target) in (0..CONNECTIONS).zip(&targets) {
            let worker = usize::from(n + shift) % workers.len();
            let data = segment(1_000 + n).flags(TcpFlags::ACK).payload(b"data");
            assert_eq!(destination(&turn(bench, &mut workers[worker], &data)), *target, "connection {n}");
        }
    };
    // Each connection's next packet comes to the other worker.
    carries_on(&bench, &mut two, 1);
    let totals = control.totals();
    let all = 2 * u64::from(CONNECTIONS);
    assert_eq!((totals.count(Count::Received), totals.fate(Fate::Forward)), (all, all), "nothing is lost");
    drop(two);
    for count in [1, 3] {
        let (control, mut others) = workers(&mut bench, count);
        carries_on(&bench, &mut others, 0);
        assert_eq!(control.totals().count(Count::FlowOpened), 0, "nobody's connection was opened anew");
    }
    assert_eq!(bench.flows.count().total(), u64::from(CONNECTIONS));
}
