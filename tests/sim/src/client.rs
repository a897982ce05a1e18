//! Clients: each opens a connection, sends numbered requests one at a time, repeats what is not answered, and may close
//! in one of several ways, or fall silent. The checks judge by what clients receive.

use std::net::{Ipv4Addr, SocketAddr};

use vipa_model::{Connection, Protocol};
use vipa_packet::{HeapPacket, build::packet};

use crate::{
    random::Random,
    segment::{Answer, Generation, Segment},
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Opening,
    Open,
    /// Has sent its FIN and waits for late data.
    HalfClosed,
    Closing,
    Closed,
    /// Reset while opening: no target listened. The client tries again.
    Refused,
    /// Reset while open or half-closed.
    Broken,
}

/// How a connection ends, after a number of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    ClientFirst,
    /// The server keeps the connection in TIME-WAIT, and accepts a SYN there.
    ServerFirst,
    /// By RST.
    Abort,
    /// The client closes its half; the server sends more after this time.
    HalfClose {
        silence: Time,
    },
}

/// How long a dialog may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialogLimit {
    Any,
    /// It ends before the run does, unless a fault prevents it.
    Short,
}

#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    pub(crate) port: u16,
    pub(crate) generation: Generation,
    pub(crate) stage: Stage,
    /// The target that answered the SYN.
    pub(crate) holder: Option<usize>,
    /// The request under way, or to be sent next.
    number: u64,
    waiting: bool,
    retry: Time,
    progress: Time,
    /// Nothing happens before this.
    silent_until: Time,
    pace: Time,
    /// Requests after which it ends.
    length: u64,
    ending: Ending,
    /// Pieces of late data that have arrived.
    late: u64,
    half_close_acked: bool,
}

/// What a dialog does when its time comes.
pub(crate) struct ClientAction {
    pub(crate) segment: Option<Segment>,
    /// It is a repetition: also ask by ARP which router has the VIPA.
    pub(crate) asks: bool,
    /// When to be called again.
    pub(crate) again: Option<Time>,
}

/// Result of an answer.
#[derive(Default)]
pub(crate) struct AnswerEffect {
    pub(crate) reply: Option<Segment>,
    /// When to act next, if that is sooner than planned.
    pub(crate) again: Option<Time>,
}

impl Dialog {
    pub(crate) fn new(port: u16, generation: Generation, now: Time, tenure: DialogLimit, random: &mut Random) -> Self {
        let endless = (u64::MAX, Ending::ClientFirst);
        let first = match tenure {
            DialogLimit::Any => 0,
            DialogLimit::Short => 50,
        };
        let (pace, (length, ending)) = match random.within(first..100) {
            0..40 => (random.within(20 * MS..200 * MS), endless),
            40..50 => (random.within(3000 * MS..6500 * MS), endless),
            50..65 => {
                let silence = random.within(100 * MS..6500 * MS);
                (random.within(MS..60 * MS), (random.within(1..6), Ending::HalfClose { silence }))
            }
            _ => {
                let ending = [Ending::ClientFirst, Ending::ServerFirst, Ending::ServerFirst, Ending::Abort];
                (random.within(MS..60 * MS), (random.within(1..40), ending[random.index(4)]))
            }
        };
        Self {
            port,
            generation,
            stage: Stage::Opening,
            holder: None,
            number: 0,
            waiting: false,
            retry: FIRST_RETRY,
            progress: now,
            silent_until: now,
            pace,
            length,
            ending,
            late: 0,
            half_close_acked: false,
        }
    }

    /// Whether an end is open: a reset breaks the connection.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::HalfClosed)
    }

    /// Whether it makes no progress although it should have made some by `time`.
    pub(crate) fn is_late(&self, time: Time) -> bool {
        (self.is_open() || self.stage == Stage::Opening) && self.progress.max(self.silent_until) < time
    }

    /// Acts when its time has come: sends, or repeats.
    pub(crate) fn act(&mut self) -> ClientAction {
        let nothing = ClientAction { segment: None, asks: false, again: None };
        if self.stage == Stage::Open && self.number >= self.length && !self.waiting {
            self.stage = match self.ending {
                Ending::ClientFirst | Ending::ServerFirst => Stage::Closing,
                Ending::HalfClose { .. } => Stage::HalfClosed,
                Ending::Abort => {
                    self.stage = Stage::Closed;
                    return ClientAction { segment: Some(Segment::Rst), ..nothing };
                }
            };
        }
        let segment = match (self.stage, self.ending) {
            (Stage::Opening, _) => Segment::Syn,
            (Stage::Open, ending) => {
                let last = ending == Ending::ServerFirst && self.number + 1 == self.length;
                Segment::Data { number: self.number, last }
            }
            (Stage::HalfClosed, Ending::HalfClose { silence }) if !self.half_close_acked => {
                Segment::HalfClose { silence }
            }
            (Stage::Closing, _) => Segment::Fin,
            (Stage::HalfClosed | Stage::Closed | Stage::Refused | Stage::Broken, _) => return nothing,
        };
        let asks = self.waiting;
        if asks {
            self.retry = (self.retry * 2).min(LONGEST_RETRY);
        }
        self.waiting = true;
        ClientAction { segment: Some(segment), asks, again: Some(self.retry) }
    }

    /// What a client sends in reply to an answer of a connection that it no longer has.
    pub(crate) fn disown(answer: Answer) -> Option<Segment> {
        match answer {
            Answer::SynAck | Answer::AckFin(_) | Answer::Late(_) | Answer::Fin => Some(Segment::Rst),
            Answer::Ack(_) | Answer::FinAck | Answer::HalfCloseAck | Answer::Challenge | Answer::Reset => None,
        }
    }

    /// Handles an answer of this connection.
    pub(crate) fn receive(&mut self, now: Time, answer: Answer, from: Option<usize>) -> AnswerEffect {
        match (self.stage, answer) {
            (Stage::Opening, Answer::SynAck) => {
                self.stage = Stage::Open;
                self.holder = from;
                self.mark_progress(now);
                AnswerEffect { again: Some(0), ..AnswerEffect::default() }
            }
            (Stage::Opening, Answer::Reset) => self.end(Stage::Refused),
            (Stage::Open, Answer::Ack(number)) if number == self.number => {
                self.number += 1;
                self.mark_progress(now);
                self.silent_until = now + self.pace;
                AnswerEffect { again: Some(self.pace), ..AnswerEffect::default() }
            }
            (Stage::Open, Answer::AckFin(number)) if number == self.number => {
                self.number += 1;
                self.stage = Stage::Closing;
                self.mark_progress(now);
                AnswerEffect { again: Some(0), ..AnswerEffect::default() }
            }
            (Stage::HalfClosed, Answer::HalfCloseAck) if !self.half_close_acked => {
                self.half_close_acked = true;
                self.mark_progress(now);
                if let Ending::HalfClose { silence } = self.ending {
                    self.silent_until = now + silence;
                }
                AnswerEffect::default()
            }
            (Stage::HalfClosed, Answer::Late(piece)) if piece <= self.late => {
                self.late = self.late.max(piece + 1);
                self.half_close_acked = true;
                self.mark_progress(now);
                AnswerEffect { reply: Some(Segment::AckLate(piece)), ..AnswerEffect::default() }
            }
            (Stage::HalfClosed, Answer::Fin) => {
                self.stage = Stage::Closed;
                AnswerEffect { reply: Some(Segment::LastAck), ..AnswerEffect::default() }
            }
            (Stage::Open | Stage::HalfClosed, Answer::Reset) => self.end(Stage::Broken),
            (Stage::Closing, Answer::FinAck | Answer::Reset) => self.end(Stage::Closed),
            // In TIME-WAIT.
            (Stage::Closed, Answer::Fin) if self.late > 0 => {
                AnswerEffect { reply: Some(Segment::LastAck), ..AnswerEffect::default() }
            }
            (Stage::Closed | Stage::Refused | Stage::Broken, answer) => {
                AnswerEffect { reply: Self::disown(answer), ..AnswerEffect::default() }
            }
            (Stage::Opening | Stage::Open | Stage::HalfClosed | Stage::Closing, _) => AnswerEffect::default(),
        }
    }

    fn end(&mut self, stage: Stage) -> AnswerEffect {
        self.stage = stage;
        AnswerEffect::default()
    }

    fn mark_progress(&mut self, now: Time) {
        self.progress = now;
        self.waiting = false;
        self.retry = FIRST_RETRY;
    }
}

/// An ARP request for the VIPA.
pub(crate) fn question() -> HeapPacket {
    packet().macs(CLIENT_MAC, [0xff; 6]).arp_request(CLIENT, VIPA_V4).padded().build()
}
