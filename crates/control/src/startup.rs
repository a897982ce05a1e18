//! Everything that can be refused, refused before a port is touched: certificates, votes, the admin socket.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use tokio::sync::mpsc;
use vipa_balance::ClusterKey;
use vipa_cluster::{Router, Stored, StoredVote, check_stored_decision, check_stored_vote};
use vipa_handoff::Routes;
use vipa_metrics::{ServerError, SnapshotRequest};
use vipa_model::{
    Incarnation, Voters,
    config::{Cluster, Config},
};
use vipa_protocol::Decision;
use vipa_transport::{
    Admission, Identity, IdentityError, StartError, Timing, TransportSettings,
    access::AccessRules,
    state::{GroupCommit, Kind, StateFile, StateFileError, StateLock, check_former_state},
};

use crate::{
    admin::{
        client::AdminClient,
        metrics::Metrics,
        queries::QuerySender,
        query_jobs::Audits,
        reload::{Check, Reader},
        socket::AdminSocket,
    },
    control::{Control, Ends, Outside, Packets},
    ownership::{peer_lists::ListKeeper, takeovers::Takeovers, voting::Voting},
    settings::settings,
    table::{connection_counts::ConnectionCounters, transfer::TableTransfers},
};

/// Why control cannot start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    State(#[from] StateFileError),
    #[error(transparent)]
    Transport(#[from] StartError),
    #[error("cannot open the admin socket {path}: {source}")]
    Admin { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Metrics(#[from] ServerError),
}

/// What control needs and has, before there are ports.
pub struct Prepared {
    config: Arc<Config>,
    file: PathBuf,
    check: Check,
    lock: StateLock,
    identity: Identity,
    admin: AdminSocket,
    vote_file: StateFile<StoredVote>,
    decision_file: StateFile<Decision>,
    voters_file: StateFile<Voters>,
    /// The voters of the configuration, if this router cannot go by them yet.
    wanted: Option<Voters>,
    stored: Stored,
    lists: ListKeeper,
    metrics: Metrics,
    scrapes: mpsc::Receiver<SnapshotRequest>,
}

impl Prepared {
    /// `file` is where `config` comes from, and is read again when it shall be reloaded; `check` says what else it must meet. Call it within the runtime that
    /// will run control.
    pub fn new(config: &Config, file: PathBuf, check: Check) -> Result<Self, ControlError> {
        let pki = &config.pki;
        let identity = Identity::load(&pki.ca, &pki.certificate, &pki.key)?;
        check_former_state(&config.node.state_dir)?;
        let lock = StateLock::take(&config.node.state_dir)?;
        let (vote_file, votes) = StateFile::open_checked(&config.node.state_dir, Kind::Votes, check_stored_vote)?;
        let (decision_file, decisions) =
            StateFile::open_checked(&config.node.state_dir, Kind::Decisions, check_stored_decision)?;
        let (voters_file, known) = StateFile::open(&config.node.state_dir, Kind::Voters)?;
        let (voters, wanted) = vipa_cluster::at_start(known.into_iter().next(), &config.cluster.voters);
        if voters.are_known() {
            voters_file
                .store(std::slice::from_ref(&voters))
                .map_err(|source| StateFileError::Folder { path: config.node.state_dir.clone(), source })?;
        }
        let cluster = Cluster { voters, ..config.cluster.clone() };
        let config = Arc::new(Config { cluster, ..config.clone() });
        let path = &config.node.admin;
        let opened = AccessRules::new(&config.node.access).and_then(|rules| AdminSocket::open(path, rules));
        let admin = opened.map_err(|source| ControlError::Admin { path: path.clone(), source })?;
        let (keeper, lists) = ListKeeper::open(&config.node.state_dir)?;
        let stored = Stored { votes, decisions, lists };
        let lists = keeper;
        let (metrics, scrapes) = Metrics::start(&config)?;
        Ok(Self {
            config,
            file,
            check,
            lock,
            identity,
            admin,
            vote_file,
            decision_file,
            voters_file,
            wanted,
            stored,
            lists,
            metrics,
            scrapes,
        })
    }

    /// The workers' first snapshot.
    #[must_use]
    pub fn first_routes(&self) -> Routes {
        Routes::empty(ClusterKey::new(self.config.cluster.key))
    }

    /// With ports open and workers at the other end of `channel`: links up, ready to run.
    pub fn start(self, packets: Packets) -> Result<(Control, Ends), ControlError> {
        let Self {
            config,
            file,
            check,
            lock,
            identity,
            admin,
            vote_file,
            decision_file,
            voters_file,
            wanted,
            stored,
            lists,
            metrics,
            scrapes,
        } = self;
        let cluster = Router::new(settings(&config, incarnation()), stored, packets.clock.now());
        let me = &config.node.name;
        let dial = config.cluster.routers.iter().filter(|(peer, _)| me < peer).cloned().collect();
        let settings = TransportSettings {
            hello: cluster.hello(),
            listen: config.node.listen,
            dial,
            admission: Admission::of(&config),
            timing: Timing::default(),
        };
        let (links, events) = vipa_transport::start(settings, &identity)?;
        // A vote that takes longer holds a takeover up.
        let slow = config.cluster.lease / 2;
        let votes = GroupCommit::start(vote_file, slow);
        let takeovers = Takeovers::open(&config.node.state_dir);
        let (asker, asked) = QuerySender::new();
        let (audits, finished) = Audits::new(asker);
        let transfers = TableTransfers::start(Arc::clone(&packets.flows), links.clone());
        let (connection_counters, counted) = ConnectionCounters::new();
        let decisions = GroupCommit::start(decision_file, slow);
        let (read, fresh) = mpsc::channel(4);
        let reader = Reader { file, check, fresh: read };
        let voters = Voting::start(voters_file, slow, config.cluster.voters.clone(), wanted);
        let outside = Outside {
            links,
            votes,
            decisions,
            takeovers,
            audits,
            connection_counters,
            transfers,
            reader,
            voters,
            lists,
            metrics,
        };
        let control = Control::new(config, cluster, packets, outside);
        let questions = AdminClient::new();
        Ok((control, Ends { lock, events, admin, questions, asked, finished, counted, fresh, scrapes }))
    }
}

/// Higher in every later life of this node, as long as its calendar does not run backwards by more than its downtime.
fn incarnation() -> Incarnation {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Incarnation(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
