//! Clients: each opens a connection, sends numbered messages one at a time, sends again what is not answered, and
//! may close. What they see is what counts.

use std::net::{Ipv4Addr, SocketAddr};

use vipa_model::{Connection, Protocol};
use vipa_packet::{HeapPacket, build::packet};

use crate::{
    random::Random,
    world::{PORT, Time, VIPA_V4},
};

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 4);
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 3, 1];
const MS: Time = 1_000_000;
const FIRST_RETRY: Time = 100 * MS;
const LONGEST_RETRY: Time = 800 * MS;

pub(crate) fn connection(port: u16) -> Connection {
    Connection { protocol: Protocol::Tcp, client: SocketAddr::from((CLIENT, port)), port: PORT }
}

/// What comes back to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    SynAck,
    Ack(u64),
    FinAck,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Opening,
    Open,
    Closing,
    Closed,
    /// Reset while opening: nobody listened. The client tries again by another port.
    Refused,
    /// Reset while open.
    Broken,
}

#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    pub(crate) port: u16,
    pub(crate) stage: Stage,
    /// The target that answered the SYN.
    pub(crate) holder: Option<usize>,
    /// The message under way, or to be sent next.
    number: u64,
    waiting: bool,
    retry: Time,
    pub(crate) progress: Time,
    pace: Time,
    /// Messages after which it closes.
    length: u64,
}

/// What a dialog wants when its time comes.
pub(crate) struct Wish {
    pub(crate) frame: Option<Segment>,
    /// It is a repetition: ask who has the VIPA, too.
    pub(crate) asks: bool,
    /// When to be called again.
    pub(crate) again: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Segment {
    Syn,
    Data(u64),
    Fin,
}

impl Dialog {
    pub(crate) fn new(port: u16, now: Time, random: &mut Random) -> Self {
        let length = if random.chance(700) { u64::MAX } else { random.within(1..60) };
        Self {
            port,
            stage: Stage::Opening,
            holder: None,
            number: 0,
            waiting: false,
            retry: FIRST_RETRY,
            progress: now,
            pace: random.within(20 * MS..200 * MS),
            length,
        }
    }

    /// Its time has come: sends, or sends again.
    pub(crate) fn act(&mut self) -> Wish {
        let segment = match self.stage {
            Stage::Opening => Segment::Syn,
            Stage::Open if self.number >= self.length && !self.waiting => {
                self.stage = Stage::Closing;
                Segment::Fin
            }
            Stage::Open => Segment::Data(self.number),
            Stage::Closing => Segment::Fin,
            Stage::Closed | Stage::Refused | Stage::Broken => return Wish { frame: None, asks: false, again: None },
        };
        let asks = self.waiting;
        if asks {
            self.retry = (self.retry * 2).min(LONGEST_RETRY);
        }
        self.waiting = true;
        Wish { frame: Some(segment), asks, again: Some(self.retry) }
    }

    /// An answer has come; says when to act next, if that is sooner than planned.
    pub(crate) fn hear(&mut self, now: Time, answer: Answer, from: Option<usize>) -> Option<Time> {
        match (self.stage, answer) {
            (Stage::Opening, Answer::SynAck) => {
                self.stage = Stage::Open;
                self.holder = from;
                self.settle(now);
                Some(0)
            }
            (Stage::Opening, Answer::Reset) => {
                self.stage = Stage::Refused;
                None
            }
            (Stage::Open, Answer::Ack(number)) if number == self.number => {
                self.number += 1;
                self.settle(now);
                Some(self.pace)
            }
            (Stage::Open, Answer::Reset) => {
                self.stage = Stage::Broken;
                None
            }
            (Stage::Closing, Answer::FinAck | Answer::Reset) => {
                self.stage = Stage::Closed;
                None
            }
            (
                Stage::Opening | Stage::Open | Stage::Closing | Stage::Closed | Stage::Refused | Stage::Broken,
                Answer::SynAck | Answer::Ack(_) | Answer::FinAck | Answer::Reset,
            ) => None,
        }
    }

    fn settle(&mut self, now: Time) {
        self.progress = now;
        self.waiting = false;
        self.retry = FIRST_RETRY;
    }
}

/// The frame of a segment, to the router with this MAC.
pub(crate) fn frame(port: u16, segment: Segment, router: [u8; 6]) -> HeapPacket {
    let tcp = packet().macs(CLIENT_MAC, router).ipv4(CLIENT, VIPA_V4).tcp(port, PORT);
    match segment {
        Segment::Syn => tcp.syn().build(),
        Segment::Data(number) => tcp.payload(number.to_be_bytes()).build(),
        Segment::Fin => tcp.fin().build(),
    }
}

/// Who has the VIPA?
pub(crate) fn question() -> HeapPacket {
    packet().macs(CLIENT_MAC, [0xff; 6]).arp_request(CLIENT, VIPA_V4).padded().build()
}
