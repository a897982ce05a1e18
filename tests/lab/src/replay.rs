//! A target without a kernel: the real protocol on the real transport, but the connections that it reports do not
//! exist. It is used where a machine has no room for a million real ones.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use vipa_cluster::{
    StoredVote,
    target::{Event, Outbox, Output, Settings, Target},
};
use vipa_model::{
    Connection, ConnectionState, Incarnation, Moment, Protocol,
    config::{Config, Program},
};
use vipa_transport::{
    Admission, Identity, LinkEvent, Sender, Timing, TransportSettings,
    state::{GroupCommit, Kind, Outcome, StateFile},
};

use crate::cluster::SERVICE_PORT;

/// Connections of one made-up client.
const PER_CLIENT: u32 = 50_000;
/// Made-up clients have addresses from here on, 256 for each target (the range of RFC 6598).
const CLIENTS: u32 = u32::from_be_bytes([100, 64, 0, 0]);

/// Runs until SIGTERM with an agent's configuration, and reports `connections` connections to each VIPA to every
/// router.
pub fn replay(config: &Path, connections: u32) -> Result<()> {
    let name = config.display().to_string();
    let text = std::fs::read_to_string(config).with_context(|| format!("cannot read {name}"))?;
    let config = Config::parse_for(Program::Agent, &name, &text)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&config, connections))
}

struct Replay {
    target: Target,
    origin: Instant,
    links: Sender,
    votes: GroupCommit<StoredVote>,
    connections: Vec<(Connection, ConnectionState)>,
    told: Vec<IpAddr>,
}

async fn run(config: &Config, connections: u32) -> Result<()> {
    let agent = config.agent.as_ref().context("[agent] is missing")?;
    let identity = Identity::load(&config.pki.ca, &config.pki.certificate, &config.pki.key)?;
    let (vote_file, stored) = StateFile::open(&config.node.state_dir, Kind::Votes)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let settings = Settings {
        cluster: config.cluster.name.clone(),
        key: vipa_transport::key_digest(&config.cluster.name, &config.cluster.key),
        me: config.node.name.clone(),
        address: agent.address,
        incarnation: Incarnation(u64::try_from(since.as_millis())?),
        voters: config.cluster.voters.clone(),
        lease: config.cluster.lease,
        kept_records: Settings::kept_records_by_default(),
    };
    let target = Target::new(settings, stored, Moment::ZERO);
    let dial = config.cluster.routers.clone();
    let (hello, admission, timing) = (target.hello(), Admission::of(config), Timing::default());
    let settings = TransportSettings { hello, listen: None, dial, admission, timing };
    let (links, mut events) = vipa_transport::start(settings, &identity)?;
    let votes = GroupCommit::start(vote_file, config.cluster.lease / 2);
    let connections = made_up(agent.address, connections);
    let mut replay = Replay { target, origin: Instant::now(), links, votes, connections, told: Vec::new() };
    loop {
        replay.votes.flush(|| replay.target.votes_to_store());
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            outcome = replay.votes.done() => match outcome {
                Outcome::Stored { token } => replay.feed(Event::VotesStored { token }),
                Outcome::Failed { .. } => replay.votes.request(),
            },
            Some(event) = events.recv() => match event {
                LinkEvent::Up { peer, hello } => replay.feed(Event::Connected { peer, hello }),
                LinkEvent::Down { peer } => replay.feed(Event::Disconnected { peer }),
                LinkEvent::Message { peer, message } => replay.feed(Event::Received { peer, message }),
                LinkEvent::Refused(refusal) => eprintln!("{refusal}"),
            },
        }
    }
}

/// No two targets have the same one.
fn made_up(target: IpAddr, count: u32) -> Vec<(Connection, ConnectionState)> {
    let number = match target {
        IpAddr::V4(address) => u32::from(address.octets()[3]),
        IpAddr::V6(address) => u32::from(address.octets()[15]),
    };
    let connection = |index: u32| {
        let client = Ipv4Addr::from_bits(CLIENTS + (number << 8) + index / PER_CLIENT);
        let port = 1024 + (index % PER_CLIENT) as u16;
        Connection { protocol: Protocol::Tcp, client: SocketAddr::from((client, port)), port: SERVICE_PORT }
    };
    (0..count).map(|index| (connection(index), ConnectionState::Established)).collect()
}

impl Replay {
    fn feed(&mut self, event: Event) {
        let mut waiting = VecDeque::from([event]);
        while let Some(event) = waiting.pop_front() {
            let now = Moment(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
            let mut out = Outbox::new();
            self.target.handle(now, event, &mut out);
            for output in out {
                match output {
                    Output::Send { to, message } => self.links.send(&to, &message),
                    Output::StoreVote { .. } => self.votes.request(),
                    // As an agent that follows its kernel: nothing has changed since.
                    Output::Look { token } => waiting.push_back(Event::Looked { token }),
                    Output::Watch { vipas } => {
                        for watched in vipas.iter().filter(|watched| !self.told.contains(&watched.vipa)) {
                            let vipa = watched.vipa;
                            waiting.push_back(Event::Holds { vipa, connections: self.connections.clone() });
                            waiting.push_back(Event::Listening { vipa, listening: Vec::new() });
                        }
                        self.told = vipas.iter().map(|watched| watched.vipa).collect();
                    }
                    Output::Serve { .. } | Output::Unwrap { .. } => {}
                    Output::Note(note) => eprintln!("{note}"),
                }
            }
        }
    }
}
