//! Every fate has a packet that meets it: one story for each, and none is left out.

mod support;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use support::*;
use vipa_dataplane::{
    Limits,
    bench::{Bench, CLIENT_MAC, KERNEL, ROUTER, ROUTER_MAC, target_mac},
};
use vipa_flow::{FlowState, Tick};
use vipa_handoff::{AnyKey, Fate, ForwardingAction, LocalReply, Reason, ReturnRoute, SourceRule};
use vipa_model::{Balance, Connection, PortRange, Protocol, Sources, Stance, TargetId, Unserved, VipaId};
use vipa_packet::{
    Encapsulation, HeapPacket, Malformed, PacketBuf, TcpFlags, TunnelEndpoints,
    build::{Builder, packet},
    checksum, icmp, nd,
};

const CLIENT6: &str = "2001:db8:1::4";
const VIPA6: &str = "2001:db8::10";

/// The packets of a story, and the bench that receives them.
type Story = (Fate, Bench);

/// These packets came to an ordinary bench.
fn came<'a>(packets: impl IntoIterator<Item = &'a Builder>) -> Bench {
    after(|_| {}, packets)
}

/// These packets came to a bench that was prepared.
fn after<'a>(prepare: impl FnOnce(&mut Bench), packets: impl IntoIterator<Item = &'a Builder>) -> Bench {
    let mut bench = bench();
    prepare(&mut bench);
    bench.turn([]);
    bench.advance(Duration::from_secs(1));
    bench.turn(packets);
    bench
}

fn tunnelled(bench: &mut Bench) {
    bench.change(|world| {
        let to = match world.targets[0].address {
            IpAddr::V4(to) => to,
            IpAddr::V6(_) => unreachable!("the bench's targets are of IPv4"),
        };
        let outer = TunnelEndpoints::V4 { source: ROUTER.to_bits(), destination: to.to_bits() };
        for target in &mut world.targets {
            target.via = ForwardingAction::Tunnel { outer, how: Encapsulation::Ipip };
            target.mtu = 1480;
        }
    });
}

fn behind_nat(bench: &mut Bench) {
    bench.change(|world| {
        world.targets[0].via = ForwardingAction::Nat { port: None };
        world.port.gateway = None;
        let (ports, target) = (PortRange::one(80), TargetId(0));
        let route = ReturnRoute { protocol: Protocol::Tcp, ports, vipa: VipaId(0), vipa_port: None, target };
        world.returns.insert(T0.parse().unwrap(), vec![route]);
    });
    bench.confirm(CLIENT, 40_000, 80, 0);
}

fn with_kernel(bench: &mut Bench) {
    bench.change(|world| world.port.kernel = Some(KERNEL));
}

fn admits(bench: &mut Bench, sources: &Sources) {
    let rule = SourceRule::build(sources).map(Arc::new);
    bench.change(|world| world.services[0].sources = rule);
}

fn refusing(bench: &mut Bench) {
    bench.change(|world| world.unserved = Unserved::Refuse);
}

fn passed_on() -> Vec<Story> {
    let ping = from_client().ipv4(CLIENT, VIPA).icmp_echo(1, 1);
    let ssh = from_client().ipv4(CLIENT, ROUTER).tcp(50_000, 22).syn();
    let from_kernel = {
        let mut bench = bench();
        with_kernel(&mut bench);
        bench.from_kernel([packet().macs(ROUTER_MAC, CLIENT_MAC).ipv4(ROUTER, CLIENT).tcp(22, 50_000).build()]);
        bench
    };
    let solicited = {
        let mut bench = Bench::with_service("[2001:db8::10]:80/tcp", ["2001:db8:0:51::21"]);
        let question = nd::solicitation(&CLIENT_MAC, CLIENT6.parse().unwrap(), VIPA6.parse().unwrap());
        bench.turn_frames([question.into()]);
        bench
    };
    let large = segment(40_000).dont_fragment().payload([0; 1460]);
    let confirmed = |bench: &mut Bench| {
        tunnelled(bench);
        bench.confirm(CLIENT, 40_000, 80, 0);
    };
    vec![
        (Fate::Forward, came([&segment(40_000).syn()])),
        (Fate::Punt, came([&packet().macs(target_mac(5), ROUTER_MAC).arp_reply("198.51.100.77", ROUTER)])),
        (Fate::ToKernel, after(with_kernel, [&ssh])),
        (Fate::FromKernel, from_kernel),
        (
            Fate::Local(LocalReply::Arp),
            came([&packet().macs(CLIENT_MAC, CLIENT_MAC).arp_request("198.51.100.9", VIPA)]),
        ),
        (Fate::Local(LocalReply::Neighbour), solicited),
        (Fate::Local(LocalReply::IcmpEcho), came([&ping])),
        (Fate::Local(LocalReply::Reset), came([&segment(40_000)])),
        (Fate::Local(LocalReply::TooBig), after(confirmed, [&large])),
        (Fate::Local(LocalReply::Unreachable), after(refusing, [&from_client().ipv4(CLIENT, VIPA).udp(40_000, 53)])),
        (Fate::Local(LocalReply::TimeExceeded), after(confirmed, [&segment(40_000).ttl(1)])),
    ]
}

fn dropped_at_sight() -> Vec<Story> {
    let syn = segment(40_000).syn();
    let elsewhere = from_client().ipv4(CLIENT, "192.0.2.99").tcp(40_000, 80).syn();
    let lost = from_client().ipv4(CLIENT, VIPA).protocol(17).payload([0; 8]).last_fragment(32);
    let tiny = from_client().ipv4(CLIENT, VIPA).protocol(6).payload([0; 8]).first_fragment();
    let quoted = packet().ipv4(VIPA, CLIENT).tcp(80, 40_001).build();
    let mut waited = came([&lost]);
    waited.advance(Duration::from_secs(1));
    waited.turn([]);
    let about_nothing = from_client().ipv4("198.51.100.77", VIPA).icmp_unreachable(1, &quoted);
    [
        (Reason::NotForUs, came([&syn.clone().macs(CLIENT_MAC, target_mac(0))])),
        (Reason::Group, came([&syn.clone().macs(CLIENT_MAC, [0xff; 6])])),
        (
            Reason::ArpOfOthers,
            came([&packet().macs(CLIENT_MAC, [0xff; 6]).arp_request("198.51.100.9", "198.51.100.8")]),
        ),
        (Reason::EtherType, came([&from_client().ether_type(0x88cc)])),
        (Reason::Vlan, came([&syn.clone().vlan(5)])),
        (Reason::NoVipa, came([&elsewhere])),
        (Reason::Fragment, waited),
        (Reason::FragmentBad, came([&tiny])),
        (Reason::IpProtocol, came([&from_client().ipv4(CLIENT, VIPA).protocol(47)])),
        (Reason::Icmp, came([&from_client().ipv4(CLIENT, VIPA).icmp(icmp::ECHO_REPLY, 0, 0)])),
        (Reason::IcmpOrphan, came([&about_nothing])),
    ]
    .map(|(reason, bench)| (Fate::Drop(reason), bench))
    .into()
}

fn not_admitted() -> Vec<Story> {
    let syn = segment(40_000).syn();
    let syns: Vec<_> = (0..50).map(|n| segment(40_000 + n).syn()).collect();
    let overloaded = {
        let mut bench = bench();
        bench.confirm(CLIENT, 39_999, 80, 0);
        let known_or_new = |n: u16| if n.is_multiple_of(8) { segment(39_999) } else { segment(40_000 + n).syn() };
        // As many as a turn takes, each millisecond.
        let full_bursts: Vec<_> = (0..256).map(known_or_new).collect();
        for _ in 0..60 {
            bench.turn(&full_bursts);
            bench.advance(Duration::from_millis(1));
        }
        bench
    };
    let denied = Sources { deny: vec!["203.0.113.0/24".parse().unwrap()], ..Sources::default() };
    let limited = Sources { new_per_second: Some(10), ..Sources::default() };
    let full = {
        let mut bench = Bench::with_limits(SERVICE, [T0, T1], 8, Limits::default());
        bench.serve(Balance::RoundRobin, &[0, 1]);
        (1..200).for_each(|port| bench.confirm(CLIENT, port, 80, 0));
        bench.turn(&syns);
        bench
    };
    [
        (Reason::NoService, came([&from_client().ipv4(CLIENT, VIPA).tcp(40_000, 81).syn()])),
        (Reason::NoTarget, after(|bench| bench.serve(Balance::Maglev, &[]), [&syn])),
        (Reason::Denied, after(|bench| admits(bench, &denied), [&syn])),
        (Reason::VipaLimit, after(|bench| bench.change(|world| world.new_per_second = Some(10)), &syns)),
        (Reason::SourceLimit, after(|bench| admits(bench, &limited), &syns)),
        (Reason::Overload, overloaded),
        (Reason::Orphan, came([&segment(40_000).flags(TcpFlags::RST)])),
        (Reason::Fenced, after(|bench| bench.world.lease.set(bench.now), [&syn])),
        (Reason::Standby, after(|bench| bench.stance(Stance::Standby), [&syn])),
        (Reason::TableFull, full),
    ]
    .map(|(reason, bench)| (Fate::Drop(reason), bench))
    .into()
}

fn could_not_go_on() -> Vec<Story> {
    let large = segment(40_000).ip_options(&[1; 4]).payload([0; 1456]);
    let pings = vec![from_client().ipv4(CLIENT, VIPA).icmp_echo(1, 1); 3000];
    let strays = vec![from_client().ipv4(CLIENT, ROUTER).udp(1, 2); 500];
    let confirmed = |bench: &mut Bench| {
        tunnelled(bench);
        bench.confirm(CLIENT, 40_000, 80, 0);
    };
    let quoted = packet().ipv4(VIPA, CLIENT).tcp(80, 40_000).build();
    let expired_error = from_client().ipv4("198.51.100.77", VIPA).ttl(1).icmp_unreachable(1, &quoted);
    let rebuilding = |bench: &mut Bench| bench.stance(Stance::Rebuilding);
    let unknown: Vec<_> = (0..5_000).map(|n| segment(10_000 + n)).collect();
    let mut expired = after(rebuilding, [&segment(40_000)]);
    expired.advance(Duration::from_secs(3));
    expired.turn([]);
    let mut untold = came([&segment(40_000).flags(TcpFlags::SYN.with(TcpFlags::ACK))]);
    untold.advance(Duration::from_secs(1));
    untold.turn([]);
    let mut silent = after(
        |bench| bench.change(|world| world.targets.iter_mut().for_each(|t| t.next_hop = None)),
        [&segment(1).syn()],
    );
    silent.advance(Duration::from_secs(3));
    silent.turn([]);
    [
        (Reason::TooBig, after(confirmed, [&large])),
        (Reason::TimeToLive, after(confirmed, [&expired_error])),
        (Reason::AnswerLimit, came(&pings)),
        (
            Reason::NoRoute,
            after(behind_nat, [&packet().macs(target_mac(0), ROUTER_MAC).ipv4(T0, CLIENT).tcp(80, 40_000)]),
        ),
        (Reason::KernelLimit, after(with_kernel, &strays)),
        (Reason::NoNeighbour, silent),
        (Reason::HoldFull, after(rebuilding, &unknown)),
        (Reason::HoldExpired, expired),
        (Reason::SynAck, untold),
        (Reason::TxRefused, after(|bench| bench.tx().room = 0, [&segment(40_000).syn()])),
    ]
    .map(|(reason, bench)| (Fate::Drop(reason), bench))
    .into()
}

/// Frame and fault, one for each.
fn malformed() -> Vec<(HeapPacket, Malformed)> {
    let set = |frame: &Builder, at: usize, byte: u8| {
        let mut frame = frame.build();
        frame.bytes_mut()[at] = byte;
        frame
    };
    // A fault in an IPv4 header, with its checksum corrected.
    let set_ip = |frame: &Builder, at: usize, byte: u8| {
        let mut frame = set(frame, 14 + at, byte);
        let header = &mut frame.bytes_mut()[14..34];
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let four = || from_client().ipv4(CLIENT, VIPA);
    let six = || from_client().ipv6(CLIENT6, VIPA6);
    let (tcp, tcp6) = (four().tcp(40_000, 80), six().tcp(40_000, 80));
    let target = VIPA6.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let question = |ttl| from_client().ipv6("2001:db8::9", VIPA6).ttl(ttl).icmp(nd::SOLICITATION, 0, 0);
    let many = (0..9).fold(tcp6.clone(), |packet, _| packet.extension(60, &[]));
    vec![
        (HeapPacket::from(&tcp.build().as_ref()[..13]), Malformed::TooShort),
        (set(&tcp, 14, 0x65), Malformed::Ipv4Version),
        (set(&tcp, 14, 0x44), Malformed::Ipv4HeaderLength),
        (set_ip(&tcp, 3, 19), Malformed::Ipv4TotalLength),
        (four().spoil_ipv4_checksum().tcp(40_000, 80).build(), Malformed::Ipv4Checksum),
        (from_client().ipv4("127.0.0.1", VIPA).tcp(40_000, 80).build(), Malformed::Ipv4Source),
        (tcp.clone().payload([0; 3]).first_fragment().build(), Malformed::Ipv4Fragment),
        (set(&tcp6, 14, 0x40), Malformed::Ipv6Version),
        (set(&tcp6, 19, 200), Malformed::Ipv6PayloadLength),
        (from_client().ipv6("ff02::1", VIPA6).tcp(40_000, 80).build(), Malformed::Ipv6Source),
        (set(&tcp6.clone().extension(60, &[]), 55, 200), Malformed::Ipv6ExtensionHeader),
        (tcp6.clone().extension(60, &[]).extension(0, &[]).build(), Malformed::Ipv6HopByHop),
        (tcp6.clone().extension(43, &[0, 1]).build(), Malformed::SourceRoute),
        (many.build(), Malformed::Ipv6TooManyHeaders),
        (tcp6.payload([0; 3]).first_fragment().build(), Malformed::Ipv6Fragment),
        (set(&tcp, 46, 0x40), Malformed::TcpHeader),
        (set(&four().udp(40_000, 80), 39, 7), Malformed::UdpLength),
        (four().protocol(1).payload([8; 7]).build(), Malformed::IcmpTooShort),
        (four().icmp(3, 0, 0).payload([0x44; 27]).build(), Malformed::IcmpQuote),
        (six().protocol(58).payload([1; 7]).build(), Malformed::Icmp6TooShort),
        (six().icmp(1, 0, 0).payload([0x60; 39]).build(), Malformed::Icmp6Quote),
        (question(64).payload(target).build(), Malformed::NdHopLimit),
        (set(&question(255).payload(target), 60, 9), Malformed::NdChecksum),
        (question(255).payload([0; 8]).build(), Malformed::NdMessage),
        (from_client().ether_type(0x0806).payload([0; 27]).build(), Malformed::Arp),
    ]
}

#[test]
fn every_fate_has_a_packet_that_meets_it() {
    let mut stories = passed_on();
    stories.extend(dropped_at_sight());
    stories.extend(not_admitted());
    stories.extend(could_not_go_on());
    let mut met: BTreeSet<&str> = malformed().iter().map(|(_, fault)| fault.counter()).collect();
    for (fate, bench) in &stories {
        let totals = bench.control.totals();
        let counted: Vec<_> = totals.iter().filter(|(_, n)| *n > 0).collect();
        assert!(totals.fate(*fate) > 0, "nothing met {}: {counted:?}", fate.name());
        assert!(totals.add_up(), "{counted:?}");
        met.insert(fate.name());
    }
    assert_eq!(met, Fate::all().map(Fate::name).collect(), "a fate without a story");
}

#[test]
fn every_malformed_packet_is_counted_by_its_fault_and_changes_nothing_else() {
    for (frame, fault) in malformed() {
        let mut bench = bench();
        assert_eq!(bench.turn_frames([frame]), NOTHING, "{fault:?}");
        bench.assert_changed(["received +1", &format!("{} +1", fault.counter())]);
        assert_eq!(bench.flows.count().total(), 0);
    }
}

#[test]
fn a_flood_of_half_open_connections_costs_no_connection_that_its_target_has_reported() {
    const LIVE: u16 = 2_000;
    let mut bench = Bench::with_limits(SERVICE, [T0, T1], 4_000, Limits::default());
    (0..LIVE).for_each(|n| bench.confirm(CLIENT, 1_000 + n, 80, n % 2));
    let mut seen = 0;
    // SYNs, each of another client, fifty for each slot of the table; now and then a packet of a live connection.
    for round in 0..3_000_u32 {
        let flood = (0..100).map(|n| from_client().ipv4(0xc612_0000 | (round * 100 + n), VIPA).tcp(7, 80).syn());
        bench.turn(&flood.collect::<Vec<_>>());
        let live = (round % u32::from(LIVE)) as u16;
        let data = segment(1_000 + live).payload(b"data");
        assert_eq!(bench.turn([&data]), [to_target((live % 2) as u8, &data)], "after {} SYNs", (round + 1) * 100);
        seen += 1;
        bench.advance(Duration::from_micros(100));
    }
    assert_eq!(seen, 3_000);
    let counts = bench.flows.count();
    assert_eq!((counts.confirmed, counts.open), (u64::from(LIVE), 0), "{counts:?}");
    let totals = bench.control.totals();
    let evicted = bench.flows.evictions();
    assert!(evicted > 270_000, "the flood's own entries gave way: {evicted}");
    assert_eq!(totals.fate(Fate::Forward) + totals.fate(Fate::Drop(Reason::TableFull)), 303_000);
}

#[test]
fn in_a_flood_a_target_still_finds_room_for_what_it_reports() {
    let mut bench = Bench::with_limits(SERVICE, [T0, T1], 1_000, Limits::default());
    let flood: Vec<_> = (0..5_000).map(|n| from_client().ipv4(0xc612_0000 | n, VIPA).tcp(7, 80).syn()).collect();
    bench.turn(&flood);
    for n in 0..500 {
        let client = (CLIENT.parse::<IpAddr>().unwrap(), 1_000 + n).into();
        let connection = Connection { protocol: Protocol::Tcp, client, port: 80 };
        let key = AnyKey::of(VipaId(0), VIPA.parse().unwrap(), &connection).unwrap();
        bench.flows.confirm(&key, TargetId(0), FlowState::Confirmed, Tick::from(bench.now));
    }
    bench.turn(&flood);
    assert_eq!(bench.flows.count().confirmed, 500, "none was refused, none went");
}
