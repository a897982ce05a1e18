//! Where the fuzzers begin: a frame of each kind, planted in the corpus before it is read.

use std::{env, fs, path::Path};

use vipa_packet::{
    HeapPacket, PacketBuf,
    build::{Builder, packet},
    nd,
};

/// Writes seeds into the folder `target` of the corpus that the variable FUZZ_CORPUS names, if it does.
pub fn plant(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) {
    let Some(corpus) = env::var_os("FUZZ_CORPUS") else { return };
    let folder = Path::new(&corpus).join(target);
    fs::create_dir_all(&folder).expect("a folder can be made");
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), seed).expect("a file can be written");
    }
}

/// One frame of each kind, after `prefix`.
pub fn frames(prefix: &[u8]) -> Vec<Vec<u8>> {
    all_kinds().iter().map(|frame| [prefix, frame.bytes()].concat()).collect()
}

fn all_kinds() -> Vec<HeapPacket> {
    let four = || packet().ipv4("203.0.113.4", "192.0.2.10");
    let six = || packet().ipv6("2001:db8:1::4", "2001:db8::10");
    let both = |transport: fn(Builder) -> Builder| [transport(four()), transport(six())];
    let mut sentences = Vec::new();
    sentences.extend(both(|ip| ip.tcp(40_000, 80).syn().tcp_options(&[2, 4, 5, 180, 1])));
    sentences.extend(both(|ip| ip.udp(40_000, 53).payload(b"question")));
    sentences.extend(both(|ip| ip.tcp(40_000, 80).payload([7; 24]).first_fragment()));
    sentences.extend(both(|ip| ip.protocol(17).payload([7; 24]).last_fragment(1_232)));
    sentences.extend(both(|ip| ip.protocol(50).payload([7; 24]).vlan(5)));
    sentences.extend([
        four().icmp_echo(1, 2).payload(b"ping"),
        six().icmp6_echo(1, 2).payload(b"ping"),
        four().ip_options(&[1; 8]).tcp(40_000, 80),
        six().extension(0, &[1, 4]).extension(43, &[4, 0]).extension(60, &[1, 12]).tcp(40_000, 80).fin(),
        packet().arp_request("203.0.113.4", "192.0.2.10").padded(),
    ]);
    let quoted = packet().ipv4("192.0.2.10", "203.0.113.4").tcp(80, 40_000).build();
    sentences.push(packet().ipv4("203.0.113.254", "192.0.2.10").icmp_too_big(1_400, &quoted));
    let quoted = packet().ipv6("2001:db8::10", "2001:db8:1::4").extension(60, &[]).udp(80, 40_000).build();
    sentences.push(packet().ipv6("2001:db8:1::fe", "2001:db8::10").icmp6_error(2, 0, 1_400, &quoted));
    let mut frames: Vec<_> = sentences.iter().map(Builder::build).collect();
    let (mac, ours, theirs) = ([2, 0, 0, 0, 0, 1], "2001:db8::9".parse().unwrap(), "2001:db8::10".parse().unwrap());
    frames.push(HeapPacket::from(nd::solicitation(&mac, ours, theirs)));
    frames.push(HeapPacket::from(nd::unsolicited(&mac, ours)));
    frames
}
