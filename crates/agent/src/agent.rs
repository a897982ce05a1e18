//! The agent's loop: waits, feeds events to the target's brain, does what comes out.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{self, error::TrySendError},
};
use vipa_cluster::{
    StoredVote,
    target::{Event, Outbox, Output, Settings, Target},
};
use vipa_model::{
    Incarnation, Moment, NodeName, Voters,
    config::{Agent as AgentConfig, Config},
};
use vipa_protocol::{CheckResult, HostLoad, Intent, Load};
use vipa_transport::{
    Identity, LinkEvent, Sender, Timing, TransportSettings,
    state::{GroupCommit, Kind, Outcome, StateFile},
};

use crate::{
    address::Addresses,
    checks,
    decap::Decap,
    drain::{self, Drain, Progress, Stage},
    kernel::{Kernel, Sight},
    load::{Condition, LoadWatch},
    orders::{OrderSocket, Wish, Word},
    status::Status,
    voting::Voting,
};

/// What could not be set up on this host is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is said what tunnels brought, when they brought anything.
const REPORT: Duration = Duration::from_secs(60);

/// How often it is looked whether what was set up on this host is still there.
const LOOK_AFTER: Duration = Duration::from_secs(3);

/// Telling the routers that this agent stops takes no longer.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) struct Agent {
    pub(crate) target: Target,
    origin: Instant,
    pub(crate) links: Sender,
    kernel: Kernel,
    load: LoadWatch,
    votes: GroupCommit<StoredVote>,
    pub(crate) voting: Voting,
    addresses: Addresses,
    decap: Decap,
    /// The VIPAs wanted on this host, until they are there.
    to_serve: Option<Vec<IpAddr>>,
    /// The VIPAs and routers of the tunnels to be unwrapped, until they are.
    to_unwrap: Option<(Vec<IpAddr>, Vec<IpAddr>)>,
    /// What has failed and waits for `RETRY`.
    failed: Option<String>,
    /// The same until it is tried again with success.
    failing: Option<String>,
    /// As the load's thread last said.
    condition: Option<Condition>,
    checks: Vec<CheckResult>,
    drain: Option<Drain>,
    /// Who is told how it goes.
    waiting: Vec<mpsc::Sender<Word>>,
    me: NodeName,
    address: IpAddr,
    /// Those it dials.
    routers: Vec<NodeName>,
    /// As the routers were told last.
    told: Option<Load>,
}

/// Runs until SIGTERM or SIGINT, then takes back what was changed on this host.
pub(crate) async fn run(file: &Path, config: &Config, config_agent: &AgentConfig) -> anyhow::Result<()> {
    let pki = &config.pki;
    let identity = Identity::load(&pki.ca, &pki.certificate, &pki.key)?;
    let (vote_file, stored) = StateFile::open(&config.node.state_dir, Kind::Votes)?;
    // A vote that takes longer holds a takeover up.
    let slow = config.cluster.lease / 2;
    let (voters, voting) = Voting::start(&config.node.state_dir, slow, &config.cluster.voters)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let (connection, netlink, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    let state_dir = &config.node.state_dir;
    let addresses = Addresses::open(&config_agent.interface, state_dir, netlink.clone()).await?;
    let decap = Decap::open(config_agent, state_dir, netlink)?;
    let namespaces = config_agent.namespaces.clone();
    let sight = Sight { observe: config_agent.observe, pace: config_agent.observe_every, namespaces };
    let (kernel, mut seen) = Kernel::start(&sight)?;
    let mut orders = OrderSocket::open(&config.node.admin).with_context(|| {
        format!("cannot open {}, where `vipa-agent drain` and `status` ask", config.node.admin.display())
    })?;
    let (checks, mut answers) = checks::start(&config_agent.checks);
    let (load, mut conditions) = LoadWatch::start().context("cannot watch this host's load")?;

    let origin = Instant::now();
    let target = Target::new(settings(config, config_agent, voters), stored, Moment::ZERO);
    let dial = config.cluster.routers.clone();
    let settings = TransportSettings { hello: target.hello(), listen: None, dial, timing: Timing::default() };
    let (links, mut events) = vipa_transport::start(settings, &identity)?;
    let votes = GroupCommit::start(vote_file, slow);
    let to_unwrap = decap.left_behind();
    let mut agent = Agent {
        target,
        origin,
        links,
        kernel,
        load,
        votes,
        voting,
        addresses,
        decap,
        to_serve: None,
        to_unwrap,
        failed: None,
        failing: None,
        condition: None,
        checks,
        drain: None,
        waiting: Vec::new(),
        me: config.node.name.clone(),
        address: config_agent.address,
        routers: config.cluster.routers.iter().map(|(name, _)| name.clone()).collect(),
        told: None,
    };
    tracing::info!(node = %config.node.name, "reporting to {} router(s)", config.cluster.routers.len());

    let config_drain = config_agent.drain_timeout;
    let mut asked_to_end = false;
    let mut drain_tick = tokio::time::interval(drain::LOOK);
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut report = tokio::time::interval(REPORT);
    let mut look_after = tokio::time::interval(LOOK_AFTER);
    look_after.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        agent.flush_state();
        tokio::select! {
            biased;
            _ = terminate.recv() => {
                if config_drain.is_zero() || asked_to_end {
                    break;
                }
                asked_to_end = true;
                tracing::info!("draining for at most {} s; SIGTERM again leaves at once", config_drain.as_secs());
                agent.begin_to_drain(Some(config_drain));
            }
            _ = interrupt.recv() => break,
            _ = hangup.recv() => agent.reload(file),
            outcome = agent.voting.file.done() => agent.voters_stored(&outcome),
            outcome = agent.votes.done() => agent.votes_stored(&outcome),
            Some(event) = events.recv() => agent.link(event),
            event = seen.recv() => match event {
                Some(event) => agent.feed(event),
                // What nobody reports is lost by the next failover: better to be restarted. The VIPAs stay for it.
                None => bail!("the thread that reads the kernel's socket tables has ended, see above; start me again"),
            },
            condition = conditions.recv() => match condition {
                Some(condition) => {
                    agent.condition = Some(condition);
                    agent.fare();
                }
                None => bail!("the thread that watches this host's load has ended, see above; start me again"),
            },
            Some((index, result)) = answers.recv() => {
                agent.checks[index] = result;
                agent.fare();
            }
            Some((wish, waiting)) = orders.recv() => agent.order(wish, waiting).await,
            _ = drain_tick.tick(), if agent.drain.is_some() => {
                if agent.tell_progress().leaves() {
                    break;
                }
            }
            _ = retry.tick() => {
                agent.try_again();
                agent.seek_voters();
            }
            _ = look_after.tick() => agent.look_after().await,
            _ = report.tick() => agent.decap.report().await,
        }
        agent.serve().await;
    }
    tracing::info!("stopping: taking back what was changed on this host");
    // First of all nobody is sent here any more. A router that does not answer is not waited for.
    let _ = tokio::time::timeout(FAREWELL, agent.links.close()).await;
    let addresses = agent.addresses.restore().await;
    agent.decap.restore().await?;
    Ok(addresses?)
}

fn settings(config: &Config, agent: &AgentConfig, voters: Voters) -> Settings {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Settings {
        cluster: config.cluster.name.clone(),
        me: config.node.name.clone(),
        address: agent.address,
        incarnation: Incarnation(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        voters,
        lease: config.cluster.lease,
        kept_records: usize::try_from(agent.log_records).unwrap_or(usize::MAX),
    }
}

impl Agent {
    /// Begins to write what waits for the disk.
    fn flush_state(&mut self) {
        self.votes.flush(|| self.target.votes_to_store());
        self.voting.flush();
    }

    fn votes_stored(&mut self, outcome: &Outcome) {
        match *outcome {
            Outcome::Stored { token } => self.feed(Event::VotesStored { token }),
            Outcome::Failed { .. } => self.votes.request(),
        }
    }

    fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { peer, hello } => self.feed(Event::Connected { peer, hello }),
            LinkEvent::Down { peer } => self.feed(Event::Disconnected { peer }),
            LinkEvent::Message { peer, message } => self.feed(Event::Received { peer, message }),
            LinkEvent::Refused { peer, why } => tracing::warn!(%peer, %why, "a link was refused"),
        }
    }

    /// Tells the routers how this host fares.
    fn fare(&mut self) {
        // Before the first look at the host there is nothing to tell; it comes within a moment.
        let Some(Condition { host, headroom, listeners, late }) = self.condition.clone() else { return };
        let intent = if self.drain.is_some() { Intent::Drain } else { Intent::Serve };
        let host = HostLoad { connections: self.connections(), ..host };
        let served = self.kernel.facts().served(&listeners, &late);
        let load = Load { intent, headroom, host, listeners, checks: self.checks.clone(), served };
        self.told = Some(load.clone());
        self.feed(Event::Fares { load });
    }

    fn connections(&self) -> u64 {
        self.target.held().values().map(|held| held.len() as u64).sum()
    }

    async fn order(&mut self, wish: Wish, waiting: mpsc::Sender<Word>) {
        match wish {
            Wish::Status => {
                // Who asked may have gone.
                let _ = waiting.try_send(Word::Status(Box::new(self.status().await)));
                return;
            }
            Wish::Drain { .. } | Wish::Cancel => self.waiting.push(waiting),
        }
        match wish {
            Wish::Status => {}
            Wish::Drain { timeout_s } => {
                tracing::info!("asked to drain");
                self.begin_to_drain(timeout_s.map(Duration::from_secs));
                self.tell_progress();
            }
            Wish::Cancel => {
                tracing::info!("asked to serve again");
                self.drain = None;
                self.fare();
                self.tell(Progress { stage: Stage::Serving, connections: self.connections(), left_s: 0 });
                self.waiting.clear();
            }
        }
    }

    async fn status(&mut self) -> Status {
        let mut setup = self.addresses.changed();
        setup.extend(self.decap.chosen());
        let (tunnels, remarks) = (self.decap.counts().await, self.decap.remarks().await);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.me.clone(),
            address: self.address,
            up_s: self.origin.elapsed().as_secs(),
            routers: self.routers.iter().map(|router| (router.clone(), self.target.is_linked(router))).collect(),
            followed: self.kernel.followed().into(),
            repaired: self.kernel.facts().repaired,
            vipas: self.target.summaries(),
            setup,
            remarks,
            failing: self.failing.clone(),
            tunnels: tunnels.into_iter().map(|(what, count)| (what.into(), count)).collect(),
            load: self.told.clone(),
        }
    }

    fn begin_to_drain(&mut self, timeout: Option<Duration>) {
        self.drain = Some(Drain::begin(tokio::time::Instant::now(), timeout));
        self.fare();
    }

    fn tell_progress(&mut self) -> Stage {
        let Some(drain) = &self.drain else { return Stage::Serving };
        let progress = drain.progress(tokio::time::Instant::now(), self.connections());
        self.tell(progress);
        progress.stage
    }

    fn tell(&mut self, progress: Progress) {
        // Who does not read misses a word, and who has gone is forgotten.
        self.waiting
            .retain(|waiting| !matches!(waiting.try_send(Word::Progress(progress)), Err(TrySendError::Closed(_))));
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn feed(&mut self, event: Event) {
        let now = self.now();
        let mut out = Outbox::new();
        self.target.handle(now, event, &mut out);
        for output in out {
            match output {
                Output::Send { to, message } => self.links.send(&to, &message),
                Output::StoreVote { .. } => self.votes.request(),
                Output::Look { token } => self.kernel.look(token),
                Output::Serve { vipas } => self.to_serve = Some(vipas),
                Output::Unwrap { vipas, routers } => self.to_unwrap = Some((vipas, routers)),
                Output::Watch { vipas } => {
                    self.load.watch(vipas.clone());
                    self.kernel.watch(vipas);
                }
                Output::Note(note) => tracing::info!("{note}"),
            }
        }
    }

    /// What failed is due again, and what only a predecessor knew of is no longer ours.
    fn try_again(&mut self) {
        self.failed = None;
        self.to_serve = self.to_serve.take().or_else(|| self.addresses.outlived());
        self.to_unwrap = self.to_unwrap.take().or_else(|| self.decap.outlived());
    }

    /// What others have taken away is put there again.
    async fn look_after(&mut self) {
        if self.to_serve.is_none() {
            self.to_serve = self.addresses.gone().await;
        }
        if self.to_unwrap.is_none() {
            self.to_unwrap = self.decap.gone().await;
        }
    }

    /// Puts the wanted VIPAs on this host and unwraps what is sent to them; what fails is said and tried again.
    async fn serve(&mut self) {
        if self.failed.is_some() {
            return;
        }
        if let Some((vipas, routers)) = &self.to_unwrap {
            match self.decap.unwrap(vipas, routers).await {
                Ok(()) => self.to_unwrap = None,
                Err(error) => self.fail(&error),
            }
        }
        if let Some(vipas) = &self.to_serve {
            match self.addresses.serve(vipas).await {
                Ok(()) => self.to_serve = None,
                Err(error) => self.fail(&error),
            }
        }
        self.failing.clone_from(&self.failed);
    }

    fn fail(&mut self, error: &dyn std::error::Error) {
        tracing::error!("{error}");
        self.failed = Some(error.to_string());
    }
}
