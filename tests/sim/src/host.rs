//! A target: its agent's brain, and a model of its kernel's TCP.

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
    client::{Answer, connection},
    world::{PORT, Time, VIPA, lease, target_address},
};

/// One end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) state: ConnectionState,
    /// The next message's number.
    expected: u64,
}

/// What a segment to this host led to.
pub(crate) enum Reaction {
    Answer(Answer),
    Silence,
    /// A message came whose predecessor never did.
    Hole {
        expected: u64,
        came: u64,
    },
}

pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) brain: Target,
    pub(crate) endpoints: BTreeMap<u16, Endpoint>,
    /// Closed lately: a FIN sent again is answered.
    closed: BTreeSet<u16>,
    pub(crate) listens: bool,
    pub(crate) serves: bool,
    pub(crate) watched: Vec<IpAddr>,
    /// Whether the host has power, and whether its agent runs.
    pub(crate) powered: bool,
    /// Its agent gets done with no look before this.
    pub(crate) mute_until: Time,
}

impl Host {
    pub(crate) fn new(index: usize, voters: Voters, life: u64, votes: Vec<StoredVote>, now: Moment) -> Self {
        Self {
            index,
            brain: brain(index, voters, life, votes, now),
            endpoints: BTreeMap::new(),
            closed: BTreeSet::new(),
            listens: true,
            serves: false,
            watched: Vec::new(),
            powered: true,
            mute_until: 0,
        }
    }

    /// The agent starts again; the kernel has not noticed.
    pub(crate) fn restart_agent(&mut self, voters: Voters, life: u64, votes: Vec<StoredVote>, now: Moment) {
        self.brain = brain(self.index, voters, life, votes, now);
        self.watched.clear();
    }

    /// All the kernel held is gone.
    pub(crate) fn lose_power(&mut self) {
        self.powered = false;
        self.endpoints.clear();
        self.closed.clear();
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

    /// What a look at the kernel finds, as events.
    pub(crate) fn look(&self) -> Vec<Event> {
        let held = |(port, endpoint): (&u16, &Endpoint)| (connection(*port), endpoint.state);
        let listening = if self.listens { vec![(Protocol::Tcp, PORT)] } else { Vec::new() };
        let of = |vipa: &IpAddr| {
            let here = self.endpoints.iter().filter(|_| *vipa == VIPA);
            let connections = here.map(held).collect();
            [Event::Holds { vipa: *vipa, connections }, Event::Listening { vipa: *vipa, listening: listening.clone() }]
        };
        self.watched.iter().flat_map(of).collect()
    }

    /// The connections held, as a router ought to know them.
    pub(crate) fn held(&self) -> BTreeMap<Connection, ConnectionState> {
        self.endpoints.iter().map(|(port, endpoint)| (connection(*port), endpoint.state)).collect()
    }

    pub(crate) fn holds(&self, port: u16) -> bool {
        self.endpoints.contains_key(&port)
    }

    pub(crate) fn syn(&mut self, port: u16) -> Reaction {
        if !self.serves {
            return Reaction::Silence;
        }
        match self.endpoints.get(&port).map(|endpoint| endpoint.state) {
            Some(ConnectionState::HalfOpen) => Reaction::Answer(Answer::SynAck),
            Some(ConnectionState::Established | ConnectionState::Closing) => Reaction::Silence,
            None if self.listens => {
                self.endpoints.insert(port, Endpoint { state: ConnectionState::HalfOpen, expected: 0 });
                Reaction::Answer(Answer::SynAck)
            }
            None => Reaction::Answer(Answer::Reset),
        }
    }

    pub(crate) fn data(&mut self, port: u16, number: u64) -> Reaction {
        if !self.serves {
            return Reaction::Silence;
        }
        let Some(endpoint) = self.endpoints.get_mut(&port) else { return Reaction::Answer(Answer::Reset) };
        endpoint.state = ConnectionState::Established;
        if number > endpoint.expected {
            return Reaction::Hole { expected: endpoint.expected, came: number };
        }
        endpoint.expected = endpoint.expected.max(number + 1);
        Reaction::Answer(Answer::Ack(number))
    }

    /// True beside the answer: a connection ended, and the kernel says so at once.
    pub(crate) fn fin(&mut self, port: u16) -> (Reaction, bool) {
        if !self.serves {
            return (Reaction::Silence, false);
        }
        if self.endpoints.remove(&port).is_some() {
            self.closed.insert(port);
            return (Reaction::Answer(Answer::FinAck), true);
        }
        let answer = if self.closed.contains(&port) { Answer::FinAck } else { Answer::Reset };
        (Reaction::Answer(answer), false)
    }

    /// The kernel's word that a connection ended.
    pub(crate) fn ended(port: u16) -> Event {
        let record = Record { connection: connection(port), change: Change::Closed };
        Event::Changed { vipa: VIPA, records: vec![record] }
    }
}

fn brain(index: usize, voters: Voters, life: u64, votes: Vec<StoredVote>, now: Moment) -> Target {
    let settings = Settings {
        cluster: "sim".into(),
        me: crate::world::target_name(index),
        address: target_address(index),
        incarnation: Incarnation(life),
        voters,
        lease: lease(),
        // Small, so that a router left behind for a while needs a snapshot.
        kept_records: 64,
    };
    Target::new(settings, votes, now)
}
