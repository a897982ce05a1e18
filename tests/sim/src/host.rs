//! A target: its agent's cluster logic, and a model of its kernel's TCP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipa_cluster::{
    StoredVote,
    target::{Event, Outbox, Output, Settings, Target},
};
use vipa_model::{Connection, ConnectionState, Incarnation, Moment, Protocol, Voters};
use vipa_protocol::{Change, Record};

use crate::{
    client::connection,
    segment::{Answer, Generation, Received, Segment},
    world::{PORT, Time, VIPA, lease, target_address},
};

const MS: Time = 1_000_000;
/// Pieces of data that a server sends after a half-close.
const PIECES: u64 = 3;
/// Time after which a piece that is not acknowledged is repeated.
const RESEND: Time = 200 * MS;
/// Time after which a half-open connection is given up.
const HALF_OPEN_LIMIT: Time = 3000 * MS;

/// One end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    generation: Generation,
    pub(crate) state: ConnectionState,
    /// Since when it is half-open, or more than that.
    pub(crate) since: Time,
    /// The next request's number.
    expected: u64,
    /// The next piece to send after the client's half-close.
    late: Option<u64>,
}

/// Result of a segment to this host.
#[derive(Default)]
pub(crate) struct Reaction {
    /// An answer, and the connection that it belongs to.
    pub(crate) answer: Option<(Generation, Answer)>,
    pub(crate) change: Option<Change>,
    /// Late data is to be sent then.
    pub(crate) late_at: Option<Time>,
    /// The first request came before the second, which was the next one: bytes were lost.
    pub(crate) hole: Option<(u64, u64)>,
}

impl Reaction {
    fn silence() -> Self {
        Self::default()
    }

    fn answer(generation: Generation, answer: Answer) -> Self {
        Self { answer: Some((generation, answer)), ..Self::default() }
    }
}

pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) brain: Target,
    pub(crate) endpoints: BTreeMap<u16, Endpoint>,
    /// Closed in order, or in TIME-WAIT: a repeated FIN is answered.
    closed: BTreeSet<(u16, Generation)>,
    /// Its agent receives every change at once; without this it only lists what there is.
    tells: bool,
    /// Changes that the agent has not yet received.
    untold: Vec<Record>,
    pub(crate) listens: bool,
    pub(crate) serves: bool,
    pub(crate) watched: Vec<IpAddr>,
    /// Whether the host has power, and whether its agent runs.
    pub(crate) powered: bool,
    /// Its agent finishes no look before this.
    pub(crate) mute_until: Time,
}

impl Host {
    pub(crate) fn new(index: usize, voters: Voters, tells: bool) -> Self {
        Self {
            index,
            brain: brain(index, voters, 0, Vec::new(), Moment::ZERO),
            endpoints: BTreeMap::new(),
            closed: BTreeSet::new(),
            tells,
            untold: Vec::new(),
            listens: true,
            serves: false,
            watched: Vec::new(),
            powered: true,
            mute_until: 0,
        }
    }

    /// Restarts the agent; the kernel does not notice.
    pub(crate) fn restart_agent(&mut self, voters: Voters, life: u64, votes: Vec<StoredVote>, now: Moment) {
        self.brain = brain(self.index, voters, life, votes, now);
        self.watched.clear();
        self.untold.clear();
    }

    /// Removes everything that the kernel held.
    pub(crate) fn lose_power(&mut self) {
        self.powered = false;
        self.endpoints.clear();
        self.closed.clear();
        self.untold.clear();
        self.serves = false;
    }

    pub(crate) fn feed(&mut self, now: Moment, event: Event) -> Outbox {
        let mut out = Outbox::new();
        self.brain.handle(now, event, &mut out);
        for output in &out {
            match output {
                Output::Serve { vipas } => self.serves = vipas.contains(&VIPA),
                Output::Watch { vipas } => self.watched = vipas.iter().map(|watched| watched.vipa).collect(),
                Output::Send { .. }
                | Output::StoreVote { .. }
                | Output::Look { .. }
                | Output::Unwrap { .. }
                | Output::Note(_) => {}
            }
        }
        out
    }

    /// The changes that the kernel has reported since they were last taken.
    pub(crate) fn take_told(&mut self) -> Option<Event> {
        let records = std::mem::take(&mut self.untold);
        (!records.is_empty()).then_some(Event::Changed { vipa: VIPA, records })
    }

    /// The result of a look at the kernel, as events.
    pub(crate) fn look(&mut self, now: Time) -> Vec<Event> {
        let is_over = |endpoint: &Endpoint| {
            endpoint.state == ConnectionState::HalfOpen && now >= endpoint.since + HALF_OPEN_LIMIT
        };
        self.endpoints.retain(|_, endpoint| !is_over(endpoint));
        let told = self.take_told();
        let held = |(port, endpoint): (&u16, &Endpoint)| (connection(*port), endpoint.state);
        let listening = if self.listens { vec![(Protocol::Tcp, PORT)] } else { Vec::new() };
        let of = |vipa: &IpAddr| {
            let here = self.endpoints.iter().filter(|_| *vipa == VIPA);
            let connections = here.map(held).collect();
            [Event::Holds { vipa: *vipa, connections }, Event::Listening { vipa: *vipa, listening: listening.clone() }]
        };
        told.into_iter().chain(self.watched.iter().flat_map(of)).collect()
    }

    /// The connections held, as a router should have them.
    pub(crate) fn held(&self) -> BTreeMap<Connection, ConnectionState> {
        self.endpoints.iter().map(|(port, endpoint)| (connection(*port), endpoint.state)).collect()
    }

    /// Connections beyond the handshake that have been held at least since `time`.
    pub(crate) fn held_since(&self, time: Time) -> impl Iterator<Item = Connection> {
        let is_old = move |end: &Endpoint| end.state != ConnectionState::HalfOpen && end.since <= time;
        self.endpoints.iter().filter(move |(_, end)| is_old(end)).map(|(port, _)| connection(*port))
    }

    pub(crate) fn holds(&self, port: u16, generation: Generation) -> bool {
        self.endpoints.get(&port).is_some_and(|endpoint| endpoint.generation == generation)
    }

    pub(crate) fn holds_any(&self, port: u16) -> bool {
        self.endpoints.contains_key(&port)
    }

    /// Handles a client's segment.
    pub(crate) fn receive(&mut self, now: Time, received: &Received) -> Reaction {
        if !self.serves {
            return Reaction::silence();
        }
        let Received { port, generation, segment, .. } = *received;
        let reaction = match (segment, self.endpoints.get(&port).map(|endpoint| endpoint.generation)) {
            (Segment::Rst, held) if held != Some(generation) => Reaction::silence(),
            (_, Some(held)) if held != generation => Reaction::answer(held, Answer::Challenge),
            (Segment::Rst, _) => self.end(port, false),
            (Segment::Syn, held) => self.syn(now, received, held.is_some()),
            (_, Some(_)) => self.segment(now, received),
            // In TIME-WAIT.
            (Segment::Fin, None) if self.closed.contains(&(port, generation)) => {
                Reaction::answer(generation, Answer::FinAck)
            }
            (_, None) if self.closed.contains(&(port, generation)) => Reaction::silence(),
            (_, None) => Reaction::answer(generation, Answer::Reset),
        };
        if let Some(change) = reaction.change.filter(|_| self.tells) {
            self.untold.push(Record { connection: connection(port), change });
        }
        reaction
    }

    fn syn(&mut self, now: Time, received: &Received, held: bool) -> Reaction {
        let Received { port, generation, .. } = *received;
        if held {
            let is_half_open = self.endpoints.get(&port).is_some_and(|end| end.state == ConnectionState::HalfOpen);
            let answer = if is_half_open { Answer::SynAck } else { Answer::Challenge };
            return Reaction::answer(generation, answer);
        }
        // Sent long ago: the connection is over.
        if self.closed.contains(&(port, generation)) {
            return Reaction::silence();
        }
        if !self.listens {
            return Reaction::answer(generation, Answer::Reset);
        }
        let state = ConnectionState::HalfOpen;
        self.endpoints.insert(port, Endpoint { generation, state, since: now, expected: 0, late: None });
        Reaction { change: Some(Change::Opened(state)), ..Reaction::answer(generation, Answer::SynAck) }
    }

    /// Handles a segment of the connection that is held.
    fn segment(&mut self, now: Time, received: &Received) -> Reaction {
        let Received { port, generation, server, segment } = *received;
        let Some(end) = self.endpoints.get_mut(&port) else { return Reaction::silence() };
        if server != Some(self.index) {
            // It acknowledges another server's SYN (RFC 9293 §3.10.7.4).
            let is_half_open = end.state == ConnectionState::HalfOpen;
            let answer = if is_half_open { Answer::Reset } else { Answer::Challenge };
            return Reaction::answer(generation, answer);
        }
        let mut reaction = Reaction::silence();
        if end.state == ConnectionState::HalfOpen {
            end.state = ConnectionState::Established;
            end.since = now;
            reaction.change = Some(Change::Opened(end.state));
        }
        let mut closes = false;
        match segment {
            Segment::Data { number, .. } if number > end.expected => reaction.hole = Some((number, end.expected)),
            Segment::Data { number, last } => {
                end.expected = end.expected.max(number + 1);
                closes = last;
                let answer = if last { Answer::AckFin(number) } else { Answer::Ack(number) };
                reaction.answer = Some((generation, answer));
            }
            Segment::HalfClose { silence } => {
                reaction.answer = Some((generation, Answer::HalfCloseAck));
                if end.late.is_none() {
                    end.late = Some(0);
                    closes = true;
                    reaction.late_at = Some(now + silence);
                }
            }
            Segment::AckLate(piece) if end.late == Some(piece) => {
                end.late = Some(piece + 1);
                reaction.answer = Some((generation, late_answer(piece + 1)));
            }
            Segment::Fin => return self.end(port, true),
            Segment::LastAck if end.late == Some(PIECES) => return self.end(port, false),
            Segment::AckLate(_) | Segment::LastAck | Segment::Syn | Segment::Rst => {}
        }
        if closes && end.state != ConnectionState::Closing {
            end.state = ConnectionState::Closing;
            reaction.change = Some(Change::Opened(end.state));
        }
        reaction
    }

    fn end(&mut self, port: u16, answers: bool) -> Reaction {
        let Some(Endpoint { generation, .. }) = self.endpoints.remove(&port) else { return Reaction::silence() };
        let answer = answers.then_some((generation, Answer::FinAck));
        if answers {
            self.closed.insert((port, generation));
        }
        Reaction { answer, change: Some(Change::Closed), ..Reaction::default() }
    }

    /// Late data is due, or due again: returns the answer, and when to ask next.
    pub(crate) fn send_late(&self, now: Time, port: u16, generation: Generation) -> Option<(Answer, Time)> {
        let endpoint = self.endpoints.get(&port).filter(|endpoint| endpoint.generation == generation)?;
        Some((late_answer(endpoint.late?), now + RESEND))
    }
}

/// The piece of late data, or the FIN after the last.
fn late_answer(piece: u64) -> Answer {
    if piece < PIECES { Answer::Late(piece) } else { Answer::Fin }
}

fn brain(index: usize, voters: Voters, life: u64, votes: Vec<StoredVote>, now: Moment) -> Target {
    let settings = Settings {
        cluster: "sim".into(),
        key: vipa_protocol::KeyDigest::default(),
        me: crate::world::target_name(index),
        address: target_address(index),
        incarnation: Incarnation(life),
        voters,
        lease: lease(),
        // Small, so that a router that was cut off for a while needs a snapshot.
        kept_records: 64,
    };
    Target::new(settings, votes, now)
}
