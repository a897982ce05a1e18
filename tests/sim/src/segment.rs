//! Segments between client and server, and how a client's segment is encoded in a frame.
//!
//! A client may use its port again while segments of the previous connection are still under way. The two ends
//! distinguish these as TCP does, by numbers that a router does not read: the sequence number of a client's segment
//! names the connection, its acknowledgement number names the connection and the server that answered.

use vipa_packet::{HeapPacket, Parsed, TcpFlags, build::packet};

use crate::{
    client::{CLIENT, CLIENT_MAC},
    world::{PORT, Time, VIPA_V4},
};

/// One connection among all that use the same port, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(pub(crate) u32);

impl Generation {
    /// The generation of an attacker's segment: no connection of a client has this one.
    pub(crate) const FORGED: Self = Self(0);
}

/// A segment of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Syn,
    /// A request. After the `last` one the server closes.
    Data {
        number: u64,
        last: bool,
    },
    /// The client closes, and the server at once, too.
    Fin,
    /// The client sends no more and waits for what the server sends after this time.
    HalfClose {
        silence: Time,
    },
    /// This piece of the late data has arrived.
    AckLate(u64),
    /// The server's FIN after its late data has arrived.
    LastAck,
    Rst,
}

/// A segment of a server, or of a router that has no such connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    SynAck,
    Ack(u64),
    /// The answer to the last request, and the server's FIN.
    AckFin(u64),
    /// The server has the client's FIN and holds the connection no longer.
    FinAck,
    /// The server has the client's FIN and has more to send.
    HalfCloseAck,
    /// A piece of late data.
    Late(u64),
    /// The server's FIN after the late data.
    Fin,
    /// An acknowledgement of the connection that the server holds, for a segment that is not of it (RFC 5961 §4, §5).
    Challenge,
    Reset,
}

/// A client's segment, as its server reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) port: u16,
    pub(crate) generation: Generation,
    /// The target whose SYN-ACK the client has accepted.
    pub(crate) server: Option<usize>,
    pub(crate) segment: Segment,
}

const DATA: u8 = 0;
const LAST_DATA: u8 = 1;
const HALF_CLOSE: u8 = 2;
const ACK_LATE: u8 = 3;
const LAST_ACK: u8 = 4;
/// Bytes of a TCP header, which has no options here.
const HEADER: usize = 20;

impl Received {
    /// Its frame, to the router with this MAC.
    pub(crate) fn frame(&self, router: [u8; 6]) -> HeapPacket {
        let Self { port, generation: Generation(generation), server, segment } = *self;
        let sequence = generation << 8;
        let acknowledged = sequence | server.map_or(0, |server| server as u32 + 1);
        let tcp = packet().macs(CLIENT_MAC, router).ipv4(CLIENT, VIPA_V4).tcp(port, PORT).sequence(sequence);
        let with = |kind: u8, number: u64| {
            let tcp = tcp.clone().acknowledge(acknowledged);
            tcp.payload([&[kind][..], &number.to_be_bytes()].concat())
        };
        match segment {
            Segment::Syn => tcp.syn(),
            Segment::Data { number, last } => with(if last { LAST_DATA } else { DATA }, number),
            Segment::Fin => tcp.acknowledge(acknowledged).fin(),
            Segment::HalfClose { silence } => with(HALF_CLOSE, silence).fin(),
            Segment::AckLate(number) => with(ACK_LATE, number),
            Segment::LastAck => with(LAST_ACK, 0),
            Segment::Rst => tcp.rst(),
        }
        .build()
    }

    /// `None`: it is no client's.
    pub(crate) fn read(frame: &[u8], parsed: &Parsed, flags: TcpFlags, port: u16) -> Option<Self> {
        let [sequence, acknowledged] = numbers(frame, parsed)?;
        let payload = frame.get(usize::from(parsed.l4) + HEADER..parsed.end as usize)?;
        let content =
            payload.split_first().and_then(|(kind, number)| Some((*kind, u64::from_be_bytes(number.try_into().ok()?))));
        let segment = match content {
            _ if flags.opens() => Segment::Syn,
            _ if flags.has(TcpFlags::RST) => Segment::Rst,
            None if flags.has(TcpFlags::FIN) => Segment::Fin,
            Some((DATA, number)) => Segment::Data { number, last: false },
            Some((LAST_DATA, number)) => Segment::Data { number, last: true },
            Some((HALF_CLOSE, silence)) => Segment::HalfClose { silence },
            Some((ACK_LATE, number)) => Segment::AckLate(number),
            Some((LAST_ACK, _)) => Segment::LastAck,
            Some(_) | None => return None,
        };
        let server = (acknowledged as usize & 0xff).checked_sub(1);
        Some(Self { port, generation: Generation(sequence >> 8), server, segment })
    }
}

/// The connection that a router's reset is about (RFC 9293 §3.10.7.1): it has the numbers of the segment that it
/// answers.
pub(crate) fn reset_connection(frame: &[u8], parsed: &Parsed, flags: TcpFlags) -> Option<Generation> {
    let [sequence, acknowledged] = numbers(frame, parsed)?;
    Some(Generation(if flags.has(TcpFlags::ACK) { acknowledged } else { sequence } >> 8))
}

/// Sequence and acknowledgement number.
fn numbers(frame: &[u8], parsed: &Parsed) -> Option<[u32; 2]> {
    let l4 = usize::from(parsed.l4);
    let number = |at: usize| Some(u32::from_be_bytes(frame.get(l4 + at..l4 + at + 4)?.try_into().ok()?));
    Some([number(4)?, number(8)?])
}
