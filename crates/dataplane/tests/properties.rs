//! Properties that hold for any input.

mod support;

use std::time::Duration;

use proptest::prelude::*;
use support::*;
use vipa_dataplane::{
    IdlePolicy,
    bench::{Bench, CLIENT_MAC, ROUTER_MAC, fuzz},
};
use vipa_flow::vectors::{Vectors, Work};
use vipa_handoff::{Count, Fate};
use vipa_model::Stance;
use vipa_model::{Balance, Moment, Orphans};
use vipa_packet::{
    Body, HEADER_ROWS, HeaderColumns, HeaderSums, HeapPacket, PacketBuf, Station, TcpFlags, build::packet,
};

/// A frame that is often nearly right.
fn frame() -> impl Strategy<Value = HeapPacket> {
    let port = 40_000..40_020_u16;
    let vipa_port = prop_oneof![4 => Just(80_u16), 1 => any::<u16>()];
    let address =
        prop_oneof![6 => Just(VIPA.to_owned()), 1 => Just("198.51.100.1".to_owned()), 1 => Just(T0.to_owned())];
    let whole = (port, vipa_port, address, any::<u8>(), 0..12_u8).prop_map(|(port, to, address, flags, form)| {
        let ip = packet().macs(CLIENT_MAC, ROUTER_MAC).ipv4(CLIENT, &*address);
        let built = match form {
            0 => ip.udp(port, to),
            1 => ip.icmp_echo(1, 2),
            2 => packet().macs(CLIENT_MAC, ROUTER_MAC).arp_request("198.51.100.9", &*address),
            3 => ip.tcp(port, to).syn(),
            4 => ip.tcp(port, to).vlan(u16::from(flags)),
            5 | 6 => packet().macs(CLIENT_MAC, ROUTER_MAC).ipv6(CLIENT6, VIPA6).tcp(port, to).flags(TcpFlags(flags)),
            _ => ip.tcp(port, to).flags(TcpFlags(flags)),
        };
        built.build()
    });
    let damaged = (whole.clone(), any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>());
    prop_oneof![
        4 => whole,
        2 => damaged.prop_map(|(frame, place, value, length)| {
            let mut bytes = frame.as_ref().to_vec();
            let place = place.index(bytes.len());
            bytes[place] = value;
            bytes.truncate(length.index(bytes.len()) + 1);
            HeapPacket::from(bytes)
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(HeapPacket::from),
    ]
}

const CLIENT6: &str = "2001:db8:1::4";
const VIPA6: &str = "2001:db8::10";

/// A segment of a connection that is nearly always known, where the VIPA is of its family.
fn known(client: &'static str) -> impl Strategy<Value = HeapPacket> {
    (40_000..40_011_u16, any::<[u8; 3]>()).prop_map(move |(port, payload)| {
        let ends = packet().macs(CLIENT_MAC, ROUTER_MAC);
        let ends = if client == CLIENT { ends.ipv4(CLIENT, VIPA) } else { ends.ipv6(CLIENT6, VIPA6) };
        ends.tcp(port, 80).payload(payload).build()
    })
}

/// At least a burst of packets, mostly of one family.
fn bursts() -> impl Strategy<Value = (&'static str, Vec<HeapPacket>)> {
    prop_oneof![Just(CLIENT), Just(CLIENT6)]
        .prop_flat_map(|client| {
            let frames =
                prop::collection::vec(prop_oneof![2 => frame(), 6 => known(client), 1 => known(CLIENT6)], 0..400);
            (Just(client), frames)
        })
        // How long a server's answer to an unknown connection is held depends on the turns that pass, not on its burst
        // alone.
        .prop_map(|(client, frames)| (client, frames.into_iter().filter(|frame| !is_syn_ack(frame)).collect()))
}

fn is_syn_ack(frame: &HeapPacket) -> bool {
    match vipa_packet::parse(frame.bytes()).map(|parsed| parsed.body) {
        Ok(Body::Ipv4Tcp(tcp)) => tcp.flags.is_syn_ack(),
        Ok(Body::Ipv6Tcp(tcp)) => tcp.flags.is_syn_ack(),
        _ => false,
    }
}

fn bench6() -> Bench {
    Bench::with_service("[2001:db8::10]:80/tcp", ["2001:db8:0:51::21", "2001:db8:0:51::22"])
}

const STATION: Station = Station::new(&ROUTER_MAC);

struct Look<'a> {
    frames: &'a [HeapPacket],
    columns: &'a mut HeaderColumns,
}

/// Segments, many of them mid-stream, of either family.
impl Work for Look<'_> {
    type Output = [(u32, u32); 2];

    #[inline(always)]
    fn run(self) -> [(u32, u32); 2] {
        for (place, frame) in self.frames.iter().enumerate() {
            self.columns.load(place, frame.as_ref());
            self.columns.load_ipv6(place, frame.as_ref());
        }
        let found = self.columns.segments(STATION, HeaderSums::Unverified);
        let ipv4 = (found.plain, found.mid_stream);
        let of_ipv6 = self.columns.ipv6();
        let found = self.columns.segments6(STATION);
        [ipv4, (found.plain & of_ipv6, found.mid_stream)]
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(Vec<HeapPacket>),
    Stance(Stance),
    Lease(Moment),
    Orphans(Orphans),
    Serve(Vec<u16>),
    Report(u16, u16),
    Pass(Duration),
    Room(usize),
}

fn step() -> impl Strategy<Value = Step> {
    use Stance::{Active, Rebuilding, Standby, Yielding};
    prop_oneof![
        6 => prop::collection::vec(frame(), 0..70).prop_map(Step::Arrive),
        1 => prop::sample::select(vec![Active, Rebuilding, Standby, Yielding]).prop_map(Step::Stance),
        1 => prop::sample::select(vec![0, u64::MAX]).prop_map(|until| Step::Lease(Moment(until))),
        1 => prop::sample::select(vec![Orphans::Reset, Orphans::Drop, Orphans::Balance]).prop_map(Step::Orphans),
        1 => prop::sample::subsequence(vec![0, 1], 0..=2).prop_map(Step::Serve),
        2 => (40_000..40_020_u16, 0..3_u16).prop_map(|(port, target)| Step::Report(port, target)),
        1 => (0..4_000_u64).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        1 => (0..50_usize).prop_map(|room| Step::Room(if room > 40 { usize::MAX } else { room })),
    ]
}

fn perform(bench: &mut Bench, step: Step) -> usize {
    match step {
        Step::Arrive(frames) => {
            let count = frames.len();
            bench.turn_frames(frames);
            return count;
        }
        Step::Stance(stance) => bench.stance(stance),
        Step::Lease(until) => bench.world.lease.set(until),
        Step::Orphans(orphans) => bench.change(|world| world.services[0].orphans = orphans),
        Step::Serve(targets) => bench.serve(Balance::Maglev, &targets),
        Step::Report(port, target) => bench.confirm(CLIENT, port, 80, target),
        Step::Pass(time) => bench.advance(time),
        Step::Room(room) => bench.tx().room = room,
    }
    bench.turn([]);
    0
}

proptest! {
    #[test]
    fn every_packet_has_one_fate_or_is_held(steps in prop::collection::vec(step(), 1..30)) {
        let mut bench = bench();
        let mut arrived = 0;
        for step in steps {
            arrived += perform(&mut bench, step) as u64;
            let totals = bench.control.totals();
            prop_assert!(totals.add_up(), "{:?}", totals.iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>());
            prop_assert_eq!(totals.count(Count::Received), arrived);
            let answered: u64 = Fate::all().filter(|fate| matches!(fate, Fate::Local(_))).map(|fate| totals.fate(fate)).sum();
            prop_assert_eq!(totals.count(Count::Sent), totals.fate(Fate::Forward) + answered);
            prop_assert!(totals.count(Count::FlowOpened) >= bench.flows.evictions());
        }
    }

    #[test]
    fn a_connection_that_a_target_holds_goes_there_and_nowhere_else(
        steps in prop::collection::vec(step(), 1..20),
        target in 0..2_u16,
    ) {
        let mut bench = bench();
        // Nothing else is about this port.
        bench.confirm(CLIENT, 50_000, 80, target);
        bench.flows.set_linked(vipa_model::TargetId(target), true);
        for step in steps {
            perform(&mut bench, step);
            bench.tx().room = usize::MAX;
            let data = segment(50_000).payload(b"data");
            let sent = bench.turn([&data]);
            prop_assert_eq!(sent.last().cloned(), Some(to_target(target as u8, &data).build()));
        }
    }

    #[test]
    fn what_comes_in_many_bursts_at_once_leaves_as_if_it_came_one_by_one((client, frames) in bursts()) {
        let [mut at_once, mut one_by_one] = std::array::from_fn(|_| {
            let bench = if client == CLIENT { bench() } else { bench6() };
            (40_000..40_010).for_each(|port| bench.confirm(client, port, 80, port % 2));
            bench
        });
        let sent: Vec<_> = frames.iter().flat_map(|frame| one_by_one.turn_frames([frame.clone()])).collect();
        prop_assert_eq!(at_once.turn_frames(frames), sent);
        let counted = |bench: &Bench| bench.control.totals().iter().collect::<Vec<_>>();
        prop_assert_eq!(counted(&at_once), counted(&one_by_one));
    }

    #[test]
    fn headers_say_the_same_to_all_vector_instructions(
        frames in prop::collection::vec(prop_oneof![1 => frame(), 2 => known(CLIENT), 2 => known(CLIENT6)], HEADER_ROWS),
    ) {
        let found = |vectors: Vectors| {
            let mut columns = HeaderColumns::default();
            let found = vectors.run(Look { frames: &frames, columns: &mut columns });
            let those = |plain: u32| (0..HEADER_ROWS).filter(move |place| plain >> place & 1 != 0);
            let segments: Vec<_> = those(found[0].0).map(|place| columns.segment(place)).collect();
            let segments6: Vec<_> = those(found[1].0).map(|place| columns.segment6(place)).collect();
            (found, segments, segments6)
        };
        for vectors in Vectors::all() {
            prop_assert_eq!(found(vectors), found(Vectors::COMMON), "{:?}", vectors);
        }
    }

    #[test]
    fn the_fuzzers_way_in_takes_any_bytes(data in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz(&data);
    }
}

#[test]
fn a_running_worker_ends_when_control_says_so_and_leaves_no_packet_without_fate() {
    let mut bench = bench();
    bench.stance(Stance::Rebuilding);
    bench.rx().arriving.push_back(segment(40_000).build());
    let Bench { mut worker, control, now, .. } = bench;
    std::thread::scope(|scope| {
        scope.spawn(move || worker.run(IdlePolicy::Sleep { max: Duration::from_millis(1) }, || now));
        while control.totals().count(Count::Holding) == 0 {
            std::thread::yield_now();
        }
        control.stop();
    });
    let totals = control.totals();
    assert!(totals.add_up());
    assert_eq!((totals.count(Count::Holding), totals.count(Count::Received)), (0, 1));
}
