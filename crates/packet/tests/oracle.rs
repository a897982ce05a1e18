//! Two independent readings of the same bytes: ours and `etherparse`'s. What it writes we read as it was meant and write
//! the same; what we write or rewrite it reads, with every checksum right; what one refuses the other refuses.

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, NetSlice, PacketBuilder, SlicedPacket, TcpHeader,
    TransportSlice, VlanHeader, VlanId, VlanPcp, checksum::Sum16BitWords,
};
use proptest::prelude::*;
use vipa_packet::{
    Body, HeapPacket, Icmp, Ipv4Icmp, Ipv4Tcp, Ipv4Udp, Malformed, PacketBuf, TCP, TcpFlags, UDP, arp,
    build::{Builder, packet},
    ethernet, icmp, parse, tcp,
};

const US: [u8; 6] = [2, 0, 0, 0, 0, 2];
const THEM: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// One packet as both builders can say it.
#[derive(Clone, Debug)]
struct Spec {
    vlan: Option<u16>,
    source: [u8; 4],
    destination: [u8; 4],
    ttl: u8,
    identification: u16,
    ip_options: Vec<u8>,
    transport: Transport,
    payload: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp { ports: (u16, u16), numbers: (u32, u32), flags: u8, options: Vec<u8> },
    Udp { ports: (u16, u16) },
    Ping { identifier: u16, sequence: u16 },
}

fn words(most: usize) -> impl Strategy<Value = Vec<u8>> {
    // One-byte no-operations: every option list of whole words is a legal one.
    (0..=most).prop_map(|count| vec![1; count * 4])
}

fn spec() -> impl Strategy<Value = Spec> {
    let transport = prop_oneof![
        (any::<(u16, u16)>(), any::<(u32, u32)>(), any::<u8>(), words(10))
            .prop_map(|(ports, numbers, flags, options)| Transport::Tcp { ports, numbers, flags, options }),
        any::<(u16, u16)>().prop_map(|ports| Transport::Udp { ports }),
        any::<(u16, u16)>().prop_map(|(identifier, sequence)| Transport::Ping { identifier, sequence }),
    ];
    let host = || {
        (1..=223u8, any::<[u8; 3]>())
            .prop_filter("a host's address", |(first, _)| *first != 127)
            .prop_map(|(a, [b, c, d])| [a, b, c, d])
    };
    let ip = (host(), host(), any::<u8>(), any::<u16>(), words(10));
    let vlan = prop::option::of(0..4_096u16);
    (vlan, ip, transport, prop::collection::vec(any::<u8>(), 0..1_400)).prop_map(
        |(vlan, (source, destination, ttl, identification, ip_options), transport, payload)| Spec {
            vlan,
            source,
            destination,
            ttl,
            identification,
            ip_options,
            transport,
            payload,
        },
    )
}

impl Spec {
    fn ours(&self) -> Builder {
        let (source, destination) = (u32::from_be_bytes(self.source), u32::from_be_bytes(self.destination));
        let mut frame = packet()
            .macs(THEM, US)
            .ipv4(source, destination)
            .ttl(self.ttl)
            .identification(self.identification)
            .ip_options(&self.ip_options)
            .payload(&self.payload);
        if let Some(vlan) = self.vlan {
            frame = frame.vlan(vlan);
        }
        match &self.transport {
            Transport::Tcp { ports, numbers, flags, options, .. } => frame
                .tcp(ports.0, ports.1)
                .sequence(numbers.0)
                .acknowledge(numbers.1)
                .flags(TcpFlags(*flags))
                .tcp_options(options),
            Transport::Udp { ports } => frame.udp(ports.0, ports.1),
            Transport::Ping { identifier, sequence } => frame.icmp_echo(*identifier, *sequence),
        }
    }

    fn theirs(&self) -> Vec<u8> {
        let protocol = match &self.transport {
            Transport::Tcp { .. } => IpNumber::TCP,
            Transport::Udp { .. } => IpNumber::UDP,
            Transport::Ping { .. } => IpNumber::ICMP,
        };
        let mut header = Ipv4Header::new(0, self.ttl, protocol, self.source, self.destination).expect("fits");
        header.identification = self.identification;
        header.dont_fragment = false;
        header.fragment_offset = IpFragOffset::ZERO;
        header.options = Ipv4Options::try_from(self.ip_options.as_slice()).expect("whole words");
        let ip = IpHeaders::Ipv4(header, Default::default());
        let link = PacketBuilder::ethernet2(THEM, US);
        let step = match self.vlan {
            Some(vlan) => {
                let tag = etherparse::SingleVlanHeader {
                    pcp: VlanPcp::ZERO,
                    drop_eligible_indicator: false,
                    vlan_id: VlanId::try_new(vlan).expect("12 bits"),
                    ether_type: etherparse::EtherType::IPV4,
                };
                link.vlan(VlanHeader::Single(tag)).ip(ip)
            }
            None => link.ip(ip),
        };
        let mut frame = Vec::new();
        match &self.transport {
            Transport::Tcp { ports, numbers, flags, options, .. } => {
                let mut header = TcpHeader::new(ports.0, ports.1, numbers.0, 0xffff);
                header.acknowledgment_number = numbers.1;
                let bit = |bit: u8| flags & (1 << bit) != 0;
                (header.fin, header.syn, header.rst, header.psh) = (bit(0), bit(1), bit(2), bit(3));
                (header.ack, header.urg, header.ece, header.cwr) = (bit(4), bit(5), bit(6), bit(7));
                header.set_options_raw(options).expect("whole words");
                step.tcp_header(header).write(&mut frame, &self.payload).expect("fits");
            }
            Transport::Udp { ports } => {
                step.udp(ports.0, ports.1).write(&mut frame, &self.payload).expect("fits");
            }
            Transport::Ping { identifier, sequence } => {
                step.icmpv4_echo_request(*identifier, *sequence).write(&mut frame, &self.payload).expect("fits");
            }
        }
        frame
    }

    fn body(&self) -> Body {
        let (source, destination) = (u32::from_be_bytes(self.source), u32::from_be_bytes(self.destination));
        match self.transport {
            Transport::Tcp { ports: (source_port, destination_port), flags, .. } => {
                let flags = TcpFlags(flags);
                Body::Ipv4Tcp(Ipv4Tcp { source, destination, source_port, destination_port, flags })
            }
            Transport::Udp { ports: (source_port, destination_port) } => {
                Body::Ipv4Udp(Ipv4Udp { source, destination, source_port, destination_port })
            }
            Transport::Ping { .. } => Body::Ipv4Icmp(Ipv4Icmp { source, destination, message: Icmp::EchoRequest }),
        }
    }
}

/// Fails unless `etherparse` reads `frame` to its end and every checksum in it is right.
fn assert_sound(frame: &[u8]) -> Result<(), TestCaseError> {
    let sliced = SlicedPacket::from_ethernet(frame).expect("the oracle reads it");
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { return Err(TestCaseError::fail("not IPv4")) };
    let header = ip.header().to_header();
    prop_assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4");
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let sum = tcp.calc_checksum_ipv4(header.source, header.destination).expect("fits");
            prop_assert_eq!(sum, tcp.checksum(), "TCP");
        }
        Some(TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).expect("fits");
            prop_assert_eq!(sum, udp.checksum(), "UDP");
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            prop_assert_eq!(icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum(), "ICMP");
        }
        other => return Err(TestCaseError::fail(format!("{other:?}"))),
    }
    Ok(())
}

/// What we and the oracle both say about `frame`, where the oracle accepts: the same, except for what we refuse on purpose.
fn agree(frame: &[u8]) -> Result<(), TestCaseError> {
    let ours = parse(frame);
    let theirs = SlicedPacket::from_ethernet(frame);
    let parsed = match ours {
        Ok(parsed) => parsed,
        Err(reason) => return refused_for_cause(reason, theirs.ok().as_ref()),
    };
    match parsed.body {
        Body::Ipv4Tcp(tcp) => {
            let sliced = theirs.map_err(|error| TestCaseError::fail(format!("{error} in {parsed:?}")))?;
            let Some(TransportSlice::Tcp(theirs)) = &sliced.transport else {
                return Err(TestCaseError::fail(format!("{sliced:?}")));
            };
            prop_assert_eq!((tcp.source_port, tcp.destination_port), (theirs.source_port(), theirs.destination_port()));
            prop_assert_eq!(frame[usize::from(parsed.l4) + 13], tcp.flags.0);
            prop_assert_eq!(&frame[usize::from(parsed.l4)..parsed.end as usize], theirs.slice());
            let Some(NetSlice::Ipv4(ip)) = &sliced.net else { return Err(TestCaseError::fail("not IPv4")) };
            prop_assert_eq!(tcp.source.to_be_bytes(), ip.header().source());
            prop_assert_eq!(tcp.destination.to_be_bytes(), ip.header().destination());
        }
        Body::Ipv4Udp(udp) => {
            let sliced = theirs.map_err(|error| TestCaseError::fail(format!("{error} in {parsed:?}")))?;
            let Some(TransportSlice::Udp(theirs)) = sliced.transport else {
                return Err(TestCaseError::fail(format!("{sliced:?}")));
            };
            prop_assert_eq!((udp.source_port, udp.destination_port), (theirs.source_port(), theirs.destination_port()));
        }
        Body::Arp(message) => {
            let Ok(SlicedPacket { net: Some(NetSlice::Arp(theirs)), .. }) = theirs else {
                return Err(TestCaseError::fail(format!("{theirs:?}")));
            };
            prop_assert_eq!(theirs.sender_hw_addr(), message.sender_mac);
            prop_assert_eq!(theirs.sender_protocol_addr(), message.sender.octets());
            prop_assert_eq!(theirs.target_protocol_addr(), message.target.octets());
        }
        _ => {}
    }
    Ok(())
}

/// The oracle refuses too, or the reason is one that it does not look at.
fn refused_for_cause(reason: Malformed, theirs: Option<&SlicedPacket<'_>>) -> Result<(), TestCaseError> {
    let Some(NetSlice::Ipv4(ip)) = theirs.and_then(|sliced| sliced.net.as_ref()) else { return Ok(()) };
    let header = ip.header().to_header();
    let cause = match reason {
        Malformed::Ipv4Checksum => Sum16BitWords::new().add_slice(ip.header().slice()).ones_complement() != 0,
        Malformed::Ipv4Source => matches!(header.source[0], 0 | 127 | 224..=239 | 255),
        // A length of zero stands for a jumbogram there (RFC 2675), which IPv4 has not.
        Malformed::UdpLength => ip.payload().payload.get(4..6) == Some(&[0, 0]),
        Malformed::IcmpQuote => header.protocol == IpNumber::ICMP,
        _ => false,
    };
    prop_assert!(cause, "{reason:?}, but the oracle reads {theirs:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_the_oracle_builds_we_build_and_read_the_same(spec in spec()) {
        let theirs = spec.theirs();
        let ours = spec.ours().build();
        prop_assert_eq!(ours.bytes(), theirs.as_slice());
        let parsed = parse(&theirs).expect("a good packet");
        prop_assert_eq!(parsed.body, spec.body());
        prop_assert_eq!(parsed.vlan, spec.vlan);
        prop_assert_eq!(parsed.end as usize, theirs.len());
        assert_sound(&theirs)?;
    }

    #[test]
    fn a_byte_changed_anywhere_leaves_us_agreed(spec in spec(), at in 0..120usize, byte in any::<u8>(), cut in 0..200usize) {
        let mut frame = spec.theirs();
        if let Some(place) = frame.get_mut(at) {
            *place = byte;
        }
        agree(&frame)?;
        frame.truncate(frame.len().saturating_sub(cut));
        agree(&frame)?;
    }

    #[test]
    fn every_reset_is_sound_and_goes_back(spec in spec()) {
        let mut frame = spec.ours().build();
        let parsed = parse(frame.bytes()).expect("a good packet");
        let answered = tcp::reset(&mut frame, &parsed, &US);
        let Transport::Tcp { ports, flags, .. } = spec.transport else {
            prop_assert!(!answered);
            return Ok(());
        };
        prop_assert_eq!(answered, flags & 4 == 0);
        if answered {
            assert_sound(frame.bytes())?;
            prop_assert_eq!(&frame.bytes()[..12], &[THEM, US].concat());
            let Body::Ipv4Tcp(reset) = parse(frame.bytes()).expect("a good packet").body else {
                return Err(TestCaseError::fail("not TCP"));
            };
            prop_assert_eq!((reset.source_port, reset.destination_port), (ports.1, ports.0));
            prop_assert_eq!(reset.source.to_be_bytes(), spec.destination);
            prop_assert_eq!(reset.destination.to_be_bytes(), spec.source);
        }
    }

    #[test]
    fn every_echo_reply_is_sound_and_asked_again_is_the_request(spec in spec()) {
        let before = spec.ours().build();
        let mut frame = before.clone();
        let parsed = parse(frame.bytes()).expect("a good packet");
        let answered = icmp::echo_reply(frame.bytes_mut(), &parsed, &US);
        let ping = matches!(spec.transport, Transport::Ping { .. });
        prop_assert_eq!(answered, ping);
        if answered {
            assert_sound(frame.bytes())?;
            let Transport::Ping { identifier, sequence } = spec.transport else { unreachable!() };
            let mut reply = packet().macs(US, THEM)
                .ipv4(u32::from_be_bytes(spec.destination), u32::from_be_bytes(spec.source))
                .identification(spec.identification).ip_options(&spec.ip_options).icmp_echo_reply(identifier, sequence).payload(&spec.payload);
            if let Some(vlan) = spec.vlan {
                reply = reply.vlan(vlan);
            }
            prop_assert_eq!(&frame, &reply);
        } else {
            prop_assert_eq!(&frame, &before);
        }
    }

    #[test]
    fn an_error_that_the_oracle_quotes_names_its_connection(spec in spec(), kind in prop::sample::select(vec![3u8, 11, 12])) {
        let quote = spec.ours().build();
        let error = packet().ipv4("198.51.100.1", u32::from_be_bytes(spec.source)).icmp_error(kind, 1, 0, &quote).build();
        assert_sound(error.bytes())?;
        let Body::Ipv4Icmp(Ipv4Icmp { message, .. }) = parse(error.bytes()).expect("a good packet").body else {
            return Err(TestCaseError::fail("not ICMP"));
        };
        let named = match message {
            Icmp::Error { quoted, .. } => Some((quoted.protocol, quoted.source_port, quoted.destination_port)),
            _ => None,
        };
        let expected = match spec.transport {
            Transport::Tcp { ports, .. } => Some((TCP, ports.0, ports.1)),
            Transport::Udp { ports } => Some((UDP, ports.0, ports.1)),
            Transport::Ping { .. } => None,
        };
        prop_assert_eq!(named, expected);
    }

    #[test]
    fn arp_reads_the_same_both_ways(sender in any::<[u8; 4]>(), target in any::<[u8; 4]>(), vlan in prop::option::of(0..4_096u16)) {
        let mut question = packet().macs(THEM, ethernet::BROADCAST).arp_request(u32::from_be_bytes(sender), u32::from_be_bytes(target));
        if let Some(vlan) = vlan {
            question = question.vlan(vlan);
        }
        let mut frame = question.build();
        agree(frame.bytes())?;
        let l3 = parse(frame.bytes()).expect("a good packet").l3;
        prop_assert!(arp::reply(frame.bytes_mut(), l3, &US));
        agree(frame.bytes())?;
        let answer = HeapPacket::from(arp::gratuitous(&US, target.into()));
        agree(answer.bytes())?;
    }
}
