//! First look at each packet of a burst: whose connection it is, or what else becomes of it. Changes no packet.

use arrayvec::ArrayVec;
use vipa_flow::{FlowTable, Hit, Key4};
use vipa_handoff::{Fate, LocalReply, Note, PortRoute, Reason, Stance, VipaRoute};
use vipa_model::{Mac, PortId, Protocol, TargetId, VipaId};
use vipa_packet::{
    Arp, Body, Delivery, Icmp, Ipv4Icmp, Ipv4Tcp, PacketBuf, Parsed, Quoted, TcpFlags, arp::Operation, ethernet,
};

use crate::{BURST, Scene};

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Forward(TargetId),
    Answer(LocalReply),
    /// Wait with it: its connection may become known.
    Hold,
    /// Nothing more; this is its fate.
    Done(Fate),
}

impl Verdict {
    pub(crate) const fn drop(reason: Reason) -> Self {
        Self::Done(Fate::Drop(reason))
    }
}

/// What a connection's packet means to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Segment(TcpFlags),
    Datagram,
    /// An ICMP error about it, which must reach the target that sends too much or in vain.
    Error,
}

/// A packet whose connection is to be looked up.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// Its place in the burst.
    pub(crate) packet: u8,
    pub(crate) kind: Kind,
}

/// A burst's packets, side by side: what is known of each so far.
pub(crate) struct Lanes {
    /// One for each packet.
    pub(crate) verdicts: ArrayVec<Verdict, BURST>,
    /// For each packet with a connection: what it is, its key, what the table says.
    pub(crate) asked: ArrayVec<Asked, BURST>,
    pub(crate) keys: ArrayVec<Key4, BURST>,
    pub(crate) hits: [Option<Hit>; BURST],
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self { verdicts: ArrayVec::new(), asked: ArrayVec::new(), keys: ArrayVec::new(), hits: [const { None }; BURST] }
    }

    fn clear(&mut self) {
        self.verdicts.clear();
        self.asked.clear();
        self.keys.clear();
    }

    /// The connection will decide; until then, and should nobody decide, it is an orphan.
    #[inline]
    fn ask(&mut self, key: Key4, kind: Kind) -> Verdict {
        self.asked.push(Asked { packet: self.verdicts.len() as u8, kind });
        self.keys.push(key);
        Verdict::drop(Reason::Orphan)
    }

    /// Whose packet this is, when it is held.
    pub(crate) fn connection_of(&self, packet: usize) -> Option<(Key4, Kind)> {
        let lane = self.asked.binary_search_by_key(&packet, |asked| usize::from(asked.packet)).ok()?;
        Some((self.keys[lane], self.asked[lane].kind))
    }
}

/// Gives each packet its verdict, or asks for its connection.
#[inline]
pub(crate) fn classify<B: PacketBuf>(scene: &Scene<'_>, port: PortId, burst: &[B], lanes: &mut Lanes) {
    lanes.clear();
    let Some(route) = scene.routes.port(port) else {
        // No snapshot names this port yet.
        lanes.verdicts.extend(burst.iter().map(|_| Verdict::drop(Reason::NotForUs)));
        return;
    };
    for packet in burst {
        let verdict = classify_one(scene, (port, route), packet.bytes(), lanes);
        lanes.verdicts.push(verdict);
    }
}

/// Finds the connections asked for: hashes all, prefetches all, then looks.
#[inline]
pub(crate) fn lookup(flows: &FlowTable, lanes: &mut Lanes) {
    let count = lanes.keys.len();
    flows.lookup_batch(&lanes.keys, &mut lanes.hits[..count]);
}

/// Nearly every packet is a plain TCP segment to us: the first branch. All others are looked at from the start.
#[inline(always)]
fn classify_one(scene: &Scene<'_>, port: (PortId, &PortRoute), frame: &[u8], lanes: &mut Lanes) -> Verdict {
    if ethernet::delivery(frame, &port.1.mac.0) == Delivery::Ours
        && let Some(Parsed { body: Body::Ipv4Tcp(segment), .. }) = vipa_packet::parse_plain(frame)
    {
        return classify_segment(scene, &segment, lanes);
    }
    classify_any(scene, port, frame, lanes)
}

#[inline(always)]
fn classify_segment(scene: &Scene<'_>, segment: &Ipv4Tcp, lanes: &mut Lanes) -> Verdict {
    let Ipv4Tcp { source: client, destination, source_port: client_port, destination_port: vipa_port, flags } =
        *segment;
    match scene.routes.find_vipa(destination) {
        Some(vipa) => {
            let key = Key4 { client, client_port, vipa_port, vipa, protocol: Protocol::Tcp };
            lanes.ask(key, Kind::Segment(flags))
        }
        None => Verdict::drop(Reason::NoVipa),
    }
}

#[inline(never)]
fn classify_any(scene: &Scene<'_>, port: (PortId, &PortRoute), frame: &[u8], lanes: &mut Lanes) -> Verdict {
    let delivery = ethernet::delivery(frame, &port.1.mac.0);
    if delivery == Delivery::Foreign {
        return Verdict::drop(Reason::NotForUs);
    }
    let parsed = match vipa_packet::parse(frame) {
        Ok(parsed) => parsed,
        Err(malformed) => return Verdict::drop(Reason::Malformed(malformed)),
    };
    match parsed.body {
        // VLAN 0 is a tag that only says a priority.
        _ if parsed.vlan.is_some_and(|vlan| vlan != 0) => Verdict::drop(Reason::Vlan),
        Body::Arp(message) => arp(scene, port, delivery, &message),
        Body::OtherEtherType(_) => Verdict::drop(Reason::EtherType),
        _ if delivery == Delivery::Group => Verdict::drop(Reason::Group),
        _ => classify_ipv4(scene, port.1, &parsed, lanes),
    }
}

/// IPv4, and sent to us.
fn classify_ipv4(scene: &Scene<'_>, port: &PortRoute, parsed: &Parsed, lanes: &mut Lanes) -> Verdict {
    let vipa = |address| scene.routes.find_vipa(address);
    match parsed.body {
        Body::Ipv4Tcp(segment) => classify_segment(scene, &segment, lanes),
        Body::Ipv4Udp(datagram) => match vipa(datagram.destination) {
            Some(vipa) => lanes.ask(
                Key4 {
                    client: datagram.source,
                    client_port: datagram.source_port,
                    vipa_port: datagram.destination_port,
                    vipa,
                    protocol: Protocol::Udp,
                },
                Kind::Datagram,
            ),
            None => Verdict::drop(Reason::NoVipa),
        },
        Body::Ipv4Icmp(Ipv4Icmp { destination, message, .. }) => match (vipa(destination), message) {
            (Some(vipa), Icmp::EchoRequest) => ping(scene, vipa),
            (None, Icmp::EchoRequest) if destination == port.address.to_bits() => Verdict::Answer(LocalReply::IcmpEcho),
            (Some(vipa), Icmp::Error { quoted, .. }) if quoted.source == destination => {
                lanes.ask(quoted_connection(vipa, &quoted), Kind::Error)
            }
            (Some(_), _) => Verdict::drop(Reason::Icmp),
            (None, _) => Verdict::drop(Reason::NoVipa),
        },
        Body::Ipv4Fragment { destination, .. } if vipa(destination).is_some() => Verdict::drop(Reason::Fragment),
        Body::Ipv4Other { destination, .. } if vipa(destination).is_some() => Verdict::drop(Reason::IpProtocol),
        Body::Ipv4Fragment { .. } | Body::Ipv4Other { .. } => Verdict::drop(Reason::NoVipa),
        Body::OtherEtherType(_) | Body::Arp(_) => Verdict::drop(Reason::EtherType),
    }
}

/// The connection that an ICMP error is about: what it quotes was sent by the VIPA to the client.
fn quoted_connection(vipa: VipaId, quoted: &Quoted) -> Key4 {
    let protocol = if quoted.protocol == vipa_packet::UDP { Protocol::Udp } else { Protocol::Tcp };
    Key4 {
        client: quoted.destination,
        client_port: quoted.destination_port,
        vipa_port: quoted.source_port,
        vipa,
        protocol,
    }
}

fn ping(scene: &Scene<'_>, vipa: VipaId) -> Verdict {
    match scene.routes.vipa(vipa) {
        None => Verdict::drop(Reason::NoVipa),
        Some(vipa) if vipa.stance == Stance::Standby => Verdict::drop(Reason::Standby),
        Some(vipa) if vipa.lease.passed(scene.now) => Verdict::drop(Reason::Fenced),
        Some(_) => Verdict::Answer(LocalReply::IcmpEcho),
    }
}

/// Answers who asks for an address of ours, and tells control who has said where they are: whoever spoke to us, and
/// the targets whatever they say.
#[inline(never)]
fn arp(scene: &Scene<'_>, (port, route): (PortId, &PortRoute), delivery: Delivery, message: &Arp) -> Verdict {
    let ours = message.target == route.address || answered_vipa(scene, message.target.to_bits());
    let to_us = ours || delivery == Delivery::Ours;
    let mut told = false;
    if let Some((address, mac)) = message.neighbour()
        && (to_us || scene.routes.find_target(address.to_bits()).is_some())
    {
        // A full box counts what it refuses; the neighbour will be asked again.
        told = scene.desk.notes.try_send(Note::Neighbour { port, address, mac: Mac(mac) }).is_ok();
    }
    if ours && message.operation == Operation::Request && !message.is_announcement() {
        Verdict::Answer(LocalReply::Arp)
    } else if told {
        Verdict::Done(Fate::Punt)
    } else {
        Verdict::drop(Reason::ArpOfOthers)
    }
}

/// Whether `address` is a VIPA that this router says it has.
fn answered_vipa(scene: &Scene<'_>, address: u32) -> bool {
    let answers = |vipa: &VipaRoute| match vipa.stance {
        Stance::Active | Stance::Rebuilding => !vipa.lease.passed(scene.now),
        Stance::Standby | Stance::Yielding => false,
    };
    scene.routes.find_vipa(address).and_then(|id| scene.routes.vipa(id)).is_some_and(answers)
}
