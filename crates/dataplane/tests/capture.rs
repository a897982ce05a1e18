//! A worker whose packets are captured does what it does otherwise, and says of each packet what that was.

mod support;

use std::{sync::Arc, time::Duration};

use support::*;
use vipa_dataplane::bench::{Bench, CLIENT_MAC};
use vipa_handoff::{Capture, CaptureRecord, Count};
use vipa_model::Stance;
use vipa_packet::{
    HeapPacket, PacketBuf,
    build::{Builder, packet},
};

const TIME: Duration = Duration::from_secs(60);

/// Packets of every sort, in an order in which they change each other's fates.
fn packets() -> Vec<Builder> {
    let elsewhere = from_client().ipv4(CLIENT, "192.0.2.99").tcp(40_000, 80).syn();
    vec![
        segment(40_000).syn(),
        segment(40_000),
        segment(40_001),
        from_client().ipv4(CLIENT, VIPA).tcp(40_002, 81).syn(),
        from_client().ipv4(CLIENT, VIPA).icmp_echo(1, 1),
        packet().macs(CLIENT_MAC, CLIENT_MAC).arp_request("198.51.100.9", VIPA),
        elsewhere,
        segment(40_003).syn(),
        segment(40_003),
        from_client().ipv4(CLIENT, VIPA).udp(40_000, 53),
    ]
}

/// A bench that captures what is meant.
fn capturing(vipa: Option<&str>, fates: &str, limit: u64) -> (Bench, Arc<Capture>) {
    let mut bench = bench();
    bench.turn([]);
    let capture = Capture::new(vipa.map(|vipa| vipa.parse().unwrap()), fates, limit, bench.now, TIME);
    let capture = Arc::new(capture.unwrap());
    bench.change(|world| world.capture = Some(Arc::clone(&capture)));
    bench.advance(Duration::from_millis(1));
    bench.turn([]);
    (bench, capture)
}

/// These packets arrive; says what was sent. A turn of a worker that captures receives nothing itself.
fn turn(bench: &mut Bench, packets: &[Builder]) -> Vec<HeapPacket> {
    bench.rx().arriving.extend(packets.iter().map(Builder::build));
    let now = bench.now;
    for _ in 0..3 {
        bench.worker.turn(|| now);
    }
    assert!(bench.rx().arriving.is_empty(), "all of them are taken");
    std::mem::take(&mut bench.tx().sent)
}

fn records(capture: &Capture) -> Vec<CaptureRecord> {
    std::iter::from_fn(|| capture.next()).map(|record| *record).collect()
}

#[test]
fn packets_fare_as_without_a_capture_and_each_has_its_fate() {
    let (mut bench, capture) = capturing(None, "", 1_000);
    let mut other = self::bench();
    other.advance(Duration::from_millis(1));
    let before = (bench.control.totals(), other.control.totals());
    let sent = turn(&mut bench, &packets());
    assert_eq!(sent, other.turn(&packets()));
    let counted = (bench.control.totals().since(&before.0), other.control.totals().since(&before.1));
    assert_eq!(counted.0, counted.1);
    assert!(bench.control.totals().add_up());

    let records = records(&capture);
    let incoming: Vec<&str> = records.iter().filter(|one| !one.is_outgoing).map(|one| one.fate.name()).collect();
    let expected = [
        "forwarded",
        "forwarded",
        "replied.reset",
        "dropped.no-service",
        "replied.icmp-echo",
        "replied.arp",
        "dropped.no-vipa",
        "forwarded",
        "forwarded",
        "dropped.no-service",
    ];
    assert_eq!(incoming, expected);
    let outgoing: Vec<&[u8]> = records.iter().filter(|one| one.is_outgoing).map(|one| &*one.bytes).collect();
    let sent: Vec<&[u8]> = sent.iter().map(PacketBuf::bytes).collect();
    assert_eq!(outgoing, sent, "what goes out is captured as it went");
    let first = segment(40_000).syn().build();
    assert_eq!((&*records[0].bytes, records[0].length as usize), (first.bytes(), first.bytes().len()));
}

#[test]
fn only_what_is_meant_is_kept_and_no_more_than_is_wanted() {
    let (mut bench, capture) = capturing(Some(VIPA), "dropped.*", 1_000);
    turn(&mut bench, &packets());
    let fates = |records: Vec<CaptureRecord>| records.into_iter().map(|one| one.fate.name()).collect::<Vec<_>>();
    assert_eq!(fates(records(&capture)), ["dropped.no-service", "dropped.no-service"], "not that to another address");

    let (mut bench, capture) = capturing(None, "", 3);
    turn(&mut bench, &packets());
    assert_eq!(records(&capture).len(), 3);
    // It is over: the worker takes its packets itself again.
    bench.advance(Duration::from_millis(1));
    bench.turn([]);
    assert_eq!(bench.turn([&segment(40_000)]).len(), 1);
}

#[test]
fn a_held_packet_has_a_record_when_it_comes_and_one_when_it_goes_on() {
    let (mut bench, capture) = capturing(None, "", 1_000);
    bench.stance(Stance::Rebuilding);
    turn(&mut bench, &[segment(40_000)]);
    assert_eq!(bench.control.totals().count(Count::Holding), 1);
    bench.confirm(CLIENT, 40_000, 80, 1);
    bench.stance(Stance::Active);
    bench.advance(Duration::from_millis(2));
    let sent = turn(&mut bench, &[]);
    assert_eq!(sent, [to_target(1, &segment(40_000))]);
    let fates: Vec<(&str, bool)> = records(&capture).iter().map(|one| (one.fate.name(), one.is_outgoing)).collect();
    assert_eq!(fates, [("held", false), ("forwarded", false), ("forwarded", true)]);
    assert!(bench.control.totals().add_up());
}
