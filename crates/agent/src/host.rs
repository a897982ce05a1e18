//! The host's setup as the routers need it: a thread of its own puts the VIPAs on the interface and has tunnels
//! unwrapped.
//!
//! ```text
//!   agent's loop ── Wanted: always the whole, the last counts ──► thread ──► address ──► kernel, host.json
//!                ── Query ──► thread                                     └─► decap ────► kernel, tunnels.json
//!                ◄── HostStatus
//! ```
//! The loop that beats, votes and answers never waits for this thread: netlink and disks may be slow. Changes that
//! arrive while the thread works are applied together.

use std::{collections::BTreeSet, convert::Infallible, net::IpAddr, path::Path, thread, time::Duration};

use anyhow::Context;
use rtnetlink::Handle;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout, timeout_at},
};
use vipa_model::{Mac, config};
use vipa_protocol::{CheckResult, HostStatus, HostWork};

use crate::{
    address::Addresses,
    decap::{Decap, Tunnels},
    inheritance::Inherited,
    link_address,
    misplaced::{self, Misplaced},
};

/// After a change that follows another one closely, further changes are waited for this long, so that they are made
/// together.
const GATHER: Duration = Duration::from_millis(10);
const CLOSELY: Duration = Duration::from_millis(100);
/// Changes that take long are gathered for this many times as long, and for the next constant at most.
const REST: u32 = 3;
const LONGEST_REST: Duration = Duration::from_millis(100);
/// Reports about sockets wait no longer than this for the host's setup.
const HOLD: Duration = Duration::from_millis(500);
/// Pause before a failed setup is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Interval at which the setup is checked.
const LOOK: Duration = Duration::from_secs(3);
/// Interval at which packets from tunnels are logged, if there were any.
const REPORT: Duration = Duration::from_secs(60);
/// Queries that wait for the thread.
const QUERIES: usize = 8;
/// If the thread is busy for longer than this, a status is given without the host's part.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time limit for stopping, however slow netlink or the disk is: what is under way is recorded already.
const LONGEST_STOP: Duration = Duration::from_secs(10);

/// The wanted setup of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    vipas: BTreeSet<IpAddr>,
    tunnels: Tunnels,
    inherited: Inherited,
    /// Number of changes.
    version: u64,
}

#[derive(Debug)]
enum Query {
    Status(oneshot::Sender<HostStatus>),
    Stop(Departure, oneshot::Sender<anyhow::Result<()>>),
}

/// What an agent that ends does with the host's setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// VIPAs, settings and tunnels stay for the connections that use them, and for the next agent.
    Leave,
    /// Everything is undone: no connection is left.
    Restore,
}

/// Handle of the thread; dropping it ends the thread, and the setup stays.
#[derive(Debug)]
pub(crate) struct Host {
    wanted: watch::Sender<Wanted>,
    next: Wanted,
    /// `next` differs from what the thread has.
    is_due: bool,
    /// The version of the setup that was last completed.
    made: watch::Receiver<u64>,
    /// Since when the wanted setup has differed from the completed one.
    changed: Instant,
    misplaced: watch::Receiver<Vec<Misplaced>>,
    link_address: watch::Receiver<Option<Mac>>,
    queries: mpsc::Sender<Query>,
    ended: oneshot::Receiver<Infallible>,
}

impl Host {
    /// Takes over what an earlier agent left; ready when that has been read.
    pub(crate) async fn start(agent: &config::Agent, state_dir: &Path) -> anyhow::Result<Self> {
        let (wanted, wanted_out) = watch::channel(Wanted::default());
        let (making, made) = watch::channel(0);
        let (finding, misplaced) = watch::channel(Vec::new());
        let (link_address_in, link_address) = watch::channel(None);
        let (queries, queries_out) = mpsc::channel(QUERIES);
        let (started, ready) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        let (agent, state_dir) = (agent.clone(), state_dir.to_owned());
        let run = move || {
            let _ends: oneshot::Sender<Infallible> = ends;
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error.into()))),
            };
            runtime.block_on(async {
                match Worker::open(&agent, &state_dir, (wanted_out, making), finding).await {
                    Ok(worker) => {
                        tokio::spawn(link_address::follow(agent.address, link_address_in));
                        let _ = started.send(Ok(()));
                        worker.run(queries_out).await;
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        };
        thread::Builder::new().name("host".into()).spawn(run).context("cannot start a thread")?;
        ready.await.context("the thread that sets this host up has ended")??;
        let (next, changed) = (Wanted::default(), Instant::now());
        Ok(Self { wanted, next, is_due: false, made, changed, misplaced, link_address, queries, ended })
    }

    /// Sets exactly these VIPAs to be on this host.
    pub(crate) fn serve(&mut self, vipas: Vec<IpAddr>) {
        self.want(|wanted| wanted.vipas = vipas.into_iter().collect());
    }

    /// Sets exactly the packets that these routers encapsulate for these VIPAs to be unwrapped.
    pub(crate) fn unwrap(&mut self, vipas: Vec<IpAddr>, routers: Vec<IpAddr>) {
        let tunnels = Tunnels { vipas: vipas.into_iter().collect(), routers: routers.into_iter().collect() };
        self.want(|wanted| wanted.tunnels = tunnels);
    }

    /// Removes what an earlier agent left and no router has asked for.
    pub(crate) fn release_inherited(&mut self) {
        self.want(|wanted| wanted.inherited = Inherited::Release);
    }

    fn want(&mut self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.next);
        self.is_due = true;
    }

    /// Sends the thread the whole wanted setup.
    pub(crate) fn flush(&mut self) {
        if std::mem::take(&mut self.is_due) {
            if *self.made.borrow() == self.next.version {
                self.changed = Instant::now();
            }
            self.next.version += 1;
            self.wanted.send_replace(self.next.clone());
        }
    }

    /// Returns when the host has the wanted setup, or `HOLD` after the setup was changed. A router sends new
    /// connections as soon as listeners are reported to it, so the VIPA must be here by then.
    pub(crate) fn until_made(&self) -> impl Future<Output = ()> + use<> {
        let (version, until) = (self.next.version, self.changed + HOLD);
        let mut made = self.made.clone();
        async move {
            // Neither the time limit nor the thread's end is a reason to report no connections.
            let _ = timeout_at(until, made.wait_for(|made| *made == version)).await;
        }
    }

    /// The failing check that routers receive about misplaced VIPAs, if there are some.
    pub(crate) fn misplaced(&self) -> Option<CheckResult> {
        misplaced::check(&self.misplaced.borrow())
    }

    /// The Ethernet address of the interface that holds this target's address, whenever it changes.
    pub(crate) fn link_address(&self) -> watch::Receiver<Option<Mac>> {
        self.link_address.clone()
    }

    /// Requests the status; the answer comes when the thread has time, or states that it has none.
    pub(crate) fn status(&self) -> impl Future<Output = HostStatus> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let asked = self.queries.try_send(Query::Status(reply));
        async move {
            match (asked, timeout(PATIENCE, answer).await) {
                (Ok(()), Ok(Ok(status))) => status,
                _ => HostStatus {
                    failing: Some("work on this host takes so long that its state is not known; ask again".into()),
                    ..HostStatus::default()
                },
            }
        }
    }

    /// Returns when the thread has ended, which only a fault causes.
    pub(crate) async fn ended(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.ended).await;
    }

    /// Ends the thread.
    pub(crate) async fn stop(self, departure: Departure) -> anyhow::Result<()> {
        let (reply, done) = oneshot::channel();
        let stop = async {
            self.queries.send(Query::Stop(departure, reply)).await.context("the host's thread has ended")?;
            done.await.context("the host's thread has ended")?
        };
        match timeout(LONGEST_STOP, stop).await {
            Ok(done) => done,
            Err(_) if departure == Departure::Leave => Ok(()),
            Err(_) => anyhow::bail!("what was changed on this host is not undone after {} s", LONGEST_STOP.as_secs()),
        }
    }
}

/// State of the thread.
struct Worker {
    wanted: watch::Receiver<Wanted>,
    made: watch::Sender<u64>,
    applied: Instant,
    /// How long the last change took.
    took: Duration,
    addresses: Addresses,
    /// For the check that routers receive.
    misplaced: watch::Sender<Vec<Misplaced>>,
    decap: Decap,
    netlink: JoinHandle<()>,
    /// What could not be set up, and when it is tried again.
    failing: Option<(String, Instant)>,
}

impl Worker {
    async fn open(
        agent: &config::Agent,
        state_dir: &Path,
        (wanted, made): (watch::Receiver<Wanted>, watch::Sender<u64>),
        misplaced: watch::Sender<Vec<Misplaced>>,
    ) -> anyhow::Result<Self> {
        let (netlink, handle) = connect()?;
        let addresses = Addresses::open(&agent.interface, state_dir, handle.clone()).await?;
        let decap = Decap::open(agent, state_dir, handle)?;
        Ok(Self {
            wanted,
            made,
            applied: Instant::now(),
            took: Duration::ZERO,
            addresses,
            misplaced,
            decap,
            netlink,
            failing: None,
        })
    }

    async fn run(mut self, mut queries: mpsc::Receiver<Query>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = interval(REPORT);
        // What an earlier agent left is taken over at once.
        self.apply().await;
        loop {
            let retry = self.failing.as_ref().map(|(_, at)| *at);
            tokio::select! {
                biased;
                query = queries.recv() => match query {
                    Some(Query::Status(reply)) => drop(reply.send(self.status().await)),
                    Some(Query::Stop(departure, reply)) => {
                        let _ = reply.send(self.depart(departure).await);
                        return;
                    }
                    None => return,
                },
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => self.apply().await,
                // After a failure changes alone do not cause another attempt.
                changed = self.wanted.changed(), if retry.is_none() => {
                    if changed.is_err() {
                        return;
                    }
                    if self.applied.elapsed() < CLOSELY {
                        sleep((self.took * REST).clamp(GATHER, LONGEST_REST)).await;
                    }
                    self.apply().await;
                }
                _ = look.tick() => self.look_after().await,
                _ = report.tick() => self.decap.report().await,
                _ = &mut self.netlink => return tracing::error!("the connection to the kernel's netlink has ended"),
            }
        }
    }

    /// Gives the host the wanted setup; a failure is logged once and tried again.
    async fn apply(&mut self) {
        let began = Instant::now();
        let Wanted { vipas, tunnels, inherited, version } = self.wanted.borrow_and_update().clone();
        // Unwrapping first: a VIPA on this host must be reachable by every path.
        let unwrapped = self.decap.unwrap(&tunnels, inherited).await;
        let served = self.addresses.serve(&vipas, inherited).await;
        let failures: Vec<String> =
            [unwrapped.err().map(|error| error.to_string()), served.err().map(|error| error.to_string())]
                .into_iter()
                .flatten()
                .collect();
        if failures.is_empty() {
            let _ = self.made.send(version);
        }
        self.applied = Instant::now();
        self.took = self.applied - began;
        self.note(&failures);
    }

    /// Restores what others have removed.
    async fn look_after(&mut self) {
        let gone = (self.addresses.are_gone().await, self.decap.is_gone().await);
        let misplaced = self.addresses.misplaced();
        self.misplaced.send_if_modified(|told| {
            let is_news = *told != misplaced;
            if is_news {
                *told = misplaced.to_vec();
            }
            is_news
        });
        match gone {
            (Ok(false), Ok(false)) => {}
            (Ok(_), Ok(_)) => self.apply().await,
            (addresses, decap) => {
                let failures =
                    [addresses.err().map(|error| error.to_string()), decap.err().map(|error| error.to_string())];
                self.note(&failures.into_iter().flatten().collect::<Vec<_>>());
            }
        }
    }

    fn note(&mut self, failures: &[String]) {
        if failures.is_empty() {
            self.failing = None;
            return;
        }
        let text = failures.join("; ");
        if self.failing.as_ref().is_none_or(|(before, _)| *before != text) {
            tracing::error!("{text}");
        }
        self.failing = Some((text, Instant::now() + RETRY));
    }

    async fn status(&mut self) -> HostStatus {
        let mut setup = self.addresses.changed();
        setup.extend(self.decap.chosen());
        let work = self.addresses.work();
        HostStatus {
            setup,
            remarks: self.remarks().await,
            failing: self.failing.as_ref().map(|(text, _)| text.clone()),
            tunnels: self.decap.counts().await.into_iter().map(|(what, count)| (what.into(), count)).collect(),
            work: HostWork {
                address_dumps: work.dumps,
                address_requests: work.requests,
                files_written: work.files_written + self.decap.files_written(),
            },
        }
    }

    /// Conditions that keep packets from their destinations.
    async fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self.addresses.misplaced().iter().map(ToString::to_string).collect();
        remarks.extend(self.decap.remarks().await);
        remarks
    }

    async fn depart(mut self, departure: Departure) -> anyhow::Result<()> {
        match departure {
            Departure::Leave => self.decap.report().await,
            Departure::Restore => {
                let addresses = self.addresses.restore().await;
                self.decap.restore().await?;
                addresses?;
            }
        }
        Ok(())
    }
}

/// A connection to netlink, and the task that drives it.
fn connect() -> anyhow::Result<(JoinHandle<()>, Handle)> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    Ok((tokio::spawn(connection), handle))
}

/// `vipa-agent cleanup`: undoes what a stopped agent has left on this host; returns what was undone, a line each.
pub(crate) async fn clean_up(agent: &config::Agent, state_dir: &Path) -> anyhow::Result<Vec<String>> {
    let (_netlink, handle) = connect()?;
    let mut undone = crate::address::clean_up(state_dir, &handle).await?;
    let decap = Decap::open(agent, state_dir, handle)?;
    undone.extend(decap.left());
    decap.restore().await?;
    Ok(undone)
}
