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
    StoredVote, check_stored_vote,
    target::{Event, Outbox, Output, Settings, Target},
};
use vipa_model::{
    Incarnation, Moment, NodeName, Throttle, Voters,
    config::{Agent as AgentConfig, Config},
};
use vipa_protocol::{AgentStatus, CheckResult, HostLoad, HostStatus, Intent, Load, load::MAX_CHECKS};
use vipa_transport::{
    Admission, Identity, LinkEvent, Sender, Timing, TransportSettings,
    access::AccessRules,
    service_manager::ServiceManager,
    state::{GroupCommit, Kind, Outcome, StateFile, StateLock, check_former_state},
};

use crate::{
    checks,
    drain::{self, Drain, Progress, Stage},
    host::{Departure, Host},
    inheritance::{Inheritance, Linked},
    kernel::{Kernel, Sight},
    load::{LoadReport, LoadWatch},
    metrics::Metrics,
    orders::{OrderSocket, Wish, Word},
    voting::Voting,
};

/// How often it is looked whether voters may be taken up, and what an earlier agent left be released.
const TICK: Duration = Duration::from_secs(1);

/// After the loop has worked for so long without a break it lets the links' tasks take in what has come: beats, above all.
const SLICE: Duration = Duration::from_millis(1);

/// Telling the routers that this agent stops takes no longer.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) struct Agent {
    pub(crate) target: Target,
    origin: Instant,
    pub(crate) links: Sender,
    pub(crate) kernel: Kernel,
    load: LoadWatch,
    votes: GroupCommit<StoredVote>,
    pub(crate) voting: Voting,
    host: Host,
    inheritance: Inheritance,
    /// As the load's thread last said.
    condition: Option<LoadReport>,
    checks: Vec<CheckResult>,
    drain: Option<Drain>,
    /// Who is told how it goes.
    waiting: Vec<mpsc::Sender<Word>>,
    me: NodeName,
    address: IpAddr,
    /// Those it dials.
    pub(crate) routers: Vec<NodeName>,
    /// As the routers were told last.
    pub(crate) told: Option<Load>,
    /// Of telling the host and the kernel's reader what has changed: with thousands of VIPAs that takes long.
    changes_throttle: Throttle,
    pub(crate) metrics: Metrics,
}

/// Runs until SIGTERM or SIGINT. What was changed on this host stays, unless the host was drained of its connections.
pub(crate) async fn run(file: &Path, config: &Config, config_agent: &AgentConfig) -> anyhow::Result<()> {
    let pki = &config.pki;
    let identity = Identity::load(&pki.ca, &pki.certificate, &pki.key)?;
    check_former_state(&config.node.state_dir)?;
    let _lock = StateLock::take(&config.node.state_dir)?;
    let (vote_file, stored) = StateFile::open_checked(&config.node.state_dir, Kind::Votes, check_stored_vote)?;
    // A vote that takes longer holds a takeover up.
    let slow = config.cluster.lease / 2;
    let (voters, voting) = Voting::start(&config.node.state_dir, slow, &config.cluster.voters)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let host = Host::start(config_agent, &config.node.state_dir).await?;
    let mut link_address = host.link_address();
    let namespaces = config_agent.namespaces.clone();
    let sight = Sight { observe: config_agent.observe, pace: config_agent.observe_every, namespaces };
    let (kernel, mut seen) = Kernel::start(&sight)?;
    let mut orders = AccessRules::new(&config.node.access)
        .and_then(|rules| OrderSocket::open(&config.node.admin, rules))
        .with_context(|| {
            format!("cannot open {}, where `vipa-agent drain` and `status` ask", config.node.admin.display())
        })?;
    let (metrics, mut scrapes) = Metrics::start(config)?;
    let (checks, mut answers) = checks::start(&config_agent.checks);
    let (load, mut conditions) = LoadWatch::start().context("cannot watch this host's load")?;

    let origin = Instant::now();
    let target = Target::new(settings(config, config_agent, voters), stored, Moment::ZERO);
    let dial = config.cluster.routers.clone();
    let (hello, admission, timing) = (target.hello(), Admission::of(config), Timing::default());
    let settings = TransportSettings { hello, listen: None, dial, admission, timing };
    let (links, mut events) = vipa_transport::start(settings, &identity)?;
    let votes = GroupCommit::start(vote_file, slow);
    let mut agent = Agent {
        target,
        origin,
        links,
        kernel,
        load,
        votes,
        voting,
        host,
        inheritance: Inheritance::default(),
        condition: None,
        checks,
        drain: None,
        waiting: Vec::new(),
        me: config.node.name.clone(),
        address: config_agent.address,
        routers: config.cluster.routers.iter().map(|(name, _)| name.clone()).collect(),
        told: None,
        changes_throttle: Throttle::default(),
        metrics,
    };
    tracing::info!(node = %config.node.name, "reporting to {} router(s)", config.cluster.routers.len());

    let config_drain = config_agent.drain_timeout;
    let mut asked_to_end = false;
    let mut drain_tick = tokio::time::interval(drain::LOOK);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut service_manager = ServiceManager::from_environment();
    let mut slice = Instant::now();
    let departure = loop {
        if slice.elapsed() >= SLICE {
            tokio::task::yield_now().await;
            slice = Instant::now();
        }
        agent.apply_changes();
        let changes_due = agent.origin + Duration::from_nanos(agent.changes_throttle.due().0);
        agent.flush_state();
        agent.host.flush();
        let host_made = agent.host.until_made();
        tokio::select! {
            biased;
            _ = terminate.recv() => {
                if config_drain.is_zero() || asked_to_end {
                    break Departure::Leave;
                }
                asked_to_end = true;
                tracing::info!("draining for at most {} s; SIGTERM again leaves at once", config_drain.as_secs());
                agent.begin_to_drain(Some(config_drain));
            }
            _ = interrupt.recv() => break Departure::Leave,
            _ = hangup.recv() => {
                service_manager.reloading();
                agent.reload(file);
                service_manager.reloaded();
            }
            outcome = agent.voting.file.done() => agent.voters_stored(&outcome),
            outcome = agent.votes.done() => agent.votes_stored(&outcome),
            Some(event) = events.recv() => {
                agent.link(event);
                // What they change for the host is told once.
                while slice.elapsed() < SLICE && let Some(event) = events.try_recv() {
                    agent.link(event);
                }
            }
            event = async {
                host_made.await;
                seen.recv().await
            } => match event {
                Some(event) => agent.feed(event),
                // What nobody reports is lost by the next failover: better to be restarted. The VIPAs stay for it.
                None => bail!("the thread that reads the kernel's socket tables has ended, see above; start me again"),
            },
            condition = conditions.recv() => match condition {
                Some(condition) => {
                    agent.condition = Some(condition);
                    agent.fare();
                    // The kernel is followed, the host set up and looked at: all that routers may ask for is there.
                    service_manager.ready();
                }
                None => bail!("the thread that watches this host's load has ended, see above; start me again"),
            },
            Ok(()) = link_address.changed() => {
                let mac = *link_address.borrow_and_update();
                agent.feed(Event::LinkAddress { mac });
            }
            Some((index, result)) = answers.recv() => {
                agent.checks[index] = result;
                agent.fare();
            }
            Some((wish, waiting)) = orders.recv() => agent.order(wish, waiting),
            Some(reply) = scrapes.recv() => agent.scraped(reply),
            _ = drain_tick.tick(), if agent.drain.is_some() => {
                match agent.tell_progress() {
                    Stage::Drained => break Departure::Restore,
                    Stage::OutOfTime => break Departure::Leave,
                    Stage::Draining | Stage::Serving => {}
                }
            }
            _ = tick.tick() => {
                agent.release_inherited();
                agent.seek_voters();
                service_manager.tend(Instant::now(), || agent.service_status());
            }
            // What has changed waits no longer than that for its turn.
            () = tokio::time::sleep_until(changes_due.into()), if agent.target.has_changes() => {}
            () = agent.host.ended() => {
                bail!("the thread that sets this host up has ended, see above; start me again")
            }
        }
    };
    service_manager.stopping();
    tracing::info!(
        "stopping: {}",
        match departure {
            Departure::Leave =>
                "VIPAs and tunnels stay for the connections that are left; `vipa-agent cleanup` undoes them",
            Departure::Restore => "no connection is left, so what was changed on this host is undone",
        }
    );
    // First of all nobody is sent here any more. A router that does not answer is not waited for.
    let _ = tokio::time::timeout(FAREWELL, agent.links.close()).await;
    agent.host.stop(departure).await
}

fn settings(config: &Config, agent: &AgentConfig, voters: Voters) -> Settings {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Settings {
        cluster: config.cluster.name.clone(),
        key: vipa_transport::key_digest(&config.cluster.name, &config.cluster.key),
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
        if let LinkEvent::Up { peer, .. } | LinkEvent::Down { peer } = &event {
            self.metrics.link_changed(peer);
        }
        match event {
            LinkEvent::Up { peer, hello } => self.feed(Event::Connected { peer, hello }),
            LinkEvent::Down { peer } => self.feed(Event::Disconnected { peer }),
            LinkEvent::Message { peer, message } => self.feed(Event::Received { peer, message }),
            LinkEvent::Refused(refusal) => tracing::warn!(%refusal, times = refusal.times, "a link was refused"),
        }
    }

    /// Tells the routers how this host fares.
    fn fare(&mut self) {
        // Before the first look at the host there is nothing to tell; it comes within a moment.
        let Some(LoadReport { host, headroom, listeners, late }) = self.condition.clone() else { return };
        let intent = if self.drain.is_some() { Intent::Drain } else { Intent::Serve };
        let host = HostLoad { connections: self.connections(), ..host };
        let served = self.kernel.facts().served(&listeners, &late);
        let misplaced = self.host.misplaced();
        let checks = misplaced.into_iter().chain(self.checks.iter().cloned()).take(MAX_CHECKS).collect();
        let load = Load { intent, headroom, host, listeners, checks, served };
        self.told = Some(load.clone());
        self.feed(Event::Fares { load });
    }

    fn connections(&self) -> u64 {
        self.target.held().values().map(|held| held.len() as u64).sum()
    }

    fn order(&mut self, wish: Wish, waiting: mpsc::Sender<Word>) {
        match wish {
            Wish::Status => {
                self.tell_status(waiting);
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

    /// The line of `systemctl status`.
    fn service_status(&self) -> String {
        let linked = self.routers.iter().filter(|router| self.target.is_linked(router)).count();
        let doing = if self.drain.is_some() { "draining" } else { "serving" };
        let (routers, connections) = (self.routers.len(), self.connections());
        format!(
            "{doing}; {linked} of {routers} routers linked; {} VIPAs, {connections} connections",
            self.target.held().len()
        )
    }

    /// Answers when the host's part is known, beside the loop.
    fn tell_status(&self, waiting: mpsc::Sender<Word>) {
        let host = self.host.status();
        let status = AgentStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.me.clone(),
            address: self.address,
            up_s: self.origin.elapsed().as_secs(),
            routers: self.routers.iter().map(|router| (router.clone(), self.target.is_linked(router))).collect(),
            followed: self.kernel.followed().into(),
            repaired: self.kernel.facts().repaired,
            vipas: self.target.summaries(),
            load: self.told.clone(),
            host: HostStatus::default(),
        };
        tokio::spawn(async move {
            let status = AgentStatus { host: host.await, ..status };
            // Who asked may have gone.
            let _ = waiting.try_send(Word::Status(Box::new(status)));
        });
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
        self.target.take(now, event, &mut out);
        self.carry_out(out);
    }

    /// What the events of a turn have changed for the host and the kernel's reader.
    fn apply_changes(&mut self) {
        let began = self.now();
        if !self.target.has_changes() || !self.changes_throttle.is_due(began) {
            return;
        }
        let mut out = Outbox::new();
        self.target.tell(&mut out);
        self.carry_out(out);
        self.changes_throttle.took(began, self.now());
    }

    fn carry_out(&mut self, out: Outbox) {
        for output in out {
            match output {
                Output::Send { to, message } => {
                    self.metrics.sends(&to, &message);
                    self.links.send(&to, &message);
                }
                Output::StoreVote { .. } => self.votes.request(),
                Output::Look { token } => self.kernel.look(token),
                Output::Serve { vipas } => {
                    self.metrics.serves(vipas.len());
                    self.host.serve(vipas);
                }
                Output::Unwrap { vipas, routers } => self.host.unwrap(vipas, routers),
                Output::Watch { vipas } => {
                    self.load.watch(vipas.clone());
                    self.kernel.watch(vipas);
                }
                Output::Note(note) => tracing::info!("{note}"),
            }
        }
    }

    /// What an earlier agent left and no router has asked for goes, once they have had the time to ask.
    fn release_inherited(&mut self) {
        let linked = self.routers.iter().filter(|router| self.target.is_linked(router)).count();
        let linked = match linked {
            0 => Linked::None,
            all if all == self.routers.len() => Linked::All,
            _ => Linked::Some,
        };
        if self.inheritance.ends(self.now(), linked) {
            self.host.release_inherited();
        }
    }
}
