//! What the kernel knows: a thread that follows its sockets and tells what it saw.
//!
//! ```text
//!   Watch, Look ──► thread ──► Holds … Changed, Listening … Looked
//!                      ▲
//!        ring ─────────┤   BPF: every connection established, changed, closed, at once
//!        sock_diag ────┘   whole lists: what was there before, and whether the two agree; without BPF everything
//! ```
//! Without BPF the lists are the truth, as often as their cost allows, and the kernel's notices of ended sockets go before
//! them. With BPF the ring is; a list then is looked at only now and then, and whatever it says otherwise is asked for by name,
//! told, and counted: the two must agree.
//!
//! A connection told to have ended is forgotten by its router, so neither a notice nor a list is believed alone: a
//! notice may be of a connection's former socket, and a list may pass over one that lives. Before an end is told, the
//! kernel is asked for that very connection.
//!
//! A look costs the kernel a walk over all its sockets, so its pace follows its cost: at most a tenth of a core, with BPF
//! a two-hundredth.

pub(crate) mod diag;
mod errors;
pub(crate) mod facts;
mod listeners;
mod namespace;
mod ring;
mod schedule;
pub(crate) mod whose;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Bound,
    os::{fd::AsFd, unix::net::UnixDatagram},
    sync::mpsc as commands,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use vipa_cluster::{
    log::Live,
    target::{Event, Watched},
};
use vipa_model::{Connection, ConnectionState, Moment, Protocol, Throttle, config::Observe};
use vipa_protocol::{Change, Record};

pub(crate) use self::ring::plan;
use self::{
    diag::{Notices, States, TcpState},
    errors::{KernelError, Over, Stop},
    facts::{Facts, Shared},
    listeners::Listener,
    namespace::Namespace,
    ring::{Became, Happening, Ring},
    schedule::{LookKind, LookSchedule},
    whose::{Watch, addresses, connection_of, sockets_of, state_of},
};

/// After the ring has said that there is something, more is waited for, so that it is told together.
const GATHER: Duration = Duration::from_millis(10);
/// Happenings taken from the ring before anything else has its turn: more than it has room for.
const TURN: usize = 131_072;
/// Ends whose connections are asked for one by one; more of them at once, as when a server dies, are left to a look.
const MANY_ENDS: usize = 512;
/// Connections of closed servers asked for one by one each time; with more of them they take turns.
const MANY_LINGERING: usize = 256;
/// For so long after the start connections from before it may turn up.
const BEGINNING: Duration = Duration::from_secs(10);
/// With BPF listeners are looked at only every so many paces: the ring tells of those of TCP.
const LISTENERS_SHARE: u32 = 4;

/// How [`Kernel::followed`] says it.
const BY_BPF: &str = "BPF, verified by sock_diag";
/// Comes before every other place and connection.
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const NOBODY: Connection = Connection {
    protocol: Protocol::Tcp,
    client: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
    port: 0,
};

/// How to look.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) observe: Observe,
    /// The shortest time between two looks that nobody asked for.
    pub(crate) pace: Duration,
    /// Looked into beside the agent's own.
    pub(crate) namespaces: Vec<String>,
}

/// The asking end; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Kernel {
    orders: commands::Sender<Order>,
    wake: UnixDatagram,
    followed: &'static str,
    facts: Shared,
}

#[derive(Debug)]
enum Order {
    Watch(Vec<Watched>),
    Look(u64),
    Stop,
}

impl Kernel {
    /// Starts looking; what is seen comes out of the receiver, in the order it was seen.
    pub(crate) fn start(sight: &Sight) -> Result<(Self, mpsc::Receiver<Event>), KernelError> {
        let (orders, orders_in) = commands::channel();
        let (wake, woken) = UnixDatagram::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        // Bounded: a control loop that cannot follow slows the looking down, nothing else.
        let (told, events) = mpsc::channel(1024);
        let mut here = vec![Namespace::own()?];
        for name in &sight.namespaces {
            here.push(Namespace::open(name).map_err(|source| KernelError::Namespace { name: name.clone(), source })?);
        }
        let ring = open_ring(sight.observe, &here)?;
        let followed = if ring.is_some() { BY_BPF } else { "sock_diag alone" };
        let facts = Shared::default();
        let observer = Observer::new((here, ring), (orders_in, woken, told), sight.pace, facts.clone());
        thread::Builder::new().name("kernel".into()).spawn(move || observer.run())?;
        Ok((Self { orders, wake, followed, facts }, events))
    }

    pub(crate) fn watch(&self, vipas: Vec<Watched>) {
        self.order(Order::Watch(vipas));
    }

    /// A look begun after this is followed by `Looked` of this token or a later one.
    pub(crate) fn look(&self, token: u64) {
        self.order(Order::Look(token));
    }

    /// How connections are followed.
    pub(crate) fn followed(&self) -> &'static str {
        self.followed
    }

    pub(crate) fn follows_by_bpf(&self) -> bool {
        self.followed == BY_BPF
    }

    /// What has been counted so far.
    pub(crate) fn facts(&self) -> Facts {
        self.facts.read()
    }

    fn order(&self, order: Order) {
        // The thread ends only when we do, or with an error it has logged; a full socket means it is awake anyway.
        let _ = self.orders.send(order);
        let _ = self.wake.send(&[0]);
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.order(Order::Stop);
    }
}

fn open_ring(observe: Observe, here: &[Namespace]) -> Result<Option<Ring>, KernelError> {
    let open = || {
        let cookies = here.iter().map(|namespace| match &namespace.cookie {
            Ok(cookie) => Ok(*cookie),
            Err(error) => Err(KernelError::Cookie(error.kind().into())),
        });
        Ok(Ring::open(cookies.collect::<Result<_, _>>()?)?)
    };
    match observe {
        Observe::Diag => Ok(None),
        Observe::Bpf => open().map(Some),
        Observe::Auto => match open() {
            Ok(ring) => {
                tracing::info!("connections are followed by BPF and verified by sock_diag");
                Ok(Some(ring))
            }
            Err(error) => {
                tracing::warn!("connections are followed by sock_diag alone, because {error}");
                Ok(None)
            }
        },
    }
}

struct Observer {
    /// Network namespaces, the agent's own first.
    here: Vec<Namespace>,
    ring: Option<Ring>,
    orders: commands::Receiver<Order>,
    woken: UnixDatagram,
    told: mpsc::Sender<Event>,
    pace: Duration,
    watched: Watch,
    /// The ring tells of exactly the watched addresses.
    ring_follows: bool,
    /// The connections of each VIPA that has been looked at.
    known: BTreeMap<IpAddr, Live>,
    /// VIPAs whose first listing has succeeded and has been told. The others are listed anew, however often that fails.
    listed: BTreeSet<IpAddr>,
    /// Those of them that the ring may not know, because they are older than it.
    elders: BTreeMap<IpAddr, Live>,
    /// Connections that this host opened from a VIPA's address: no client began them.
    opened_here: BTreeSet<(IpAddr, Connection)>,
    /// Their servers have closed, and nothing tells when their clients have.
    lingering: BTreeSet<(IpAddr, Connection)>,
    /// The last of them that was asked for.
    lingered: (IpAddr, Connection),
    /// Whoever listened when that was looked at last, in order; `None`: it is to be worked out anew whom that concerns.
    listeners: Option<Vec<Listener>>,
    /// As last told.
    listening: BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>,
    /// Not yet told.
    changes: BTreeMap<IpAddr, Vec<Record>>,
    /// What the ring has spoken of since the list was begun that it is compared with.
    touched: BTreeSet<(IpAddr, Connection)>,
    comparing: bool,
    counted: Facts,
    /// As others see it.
    facts: Shared,
    /// Of the last look asked for.
    token: u64,
    /// It has not been answered.
    asked: bool,
    /// Of glances and looks: with thousands of VIPAs they take long, and routers ask for them one VIPA after the other. One answers
    /// all that were asked for before it began.
    throttle: Throttle,
    /// There was something to look at when the throttle did not allow it.
    is_throttled: bool,
    started: Instant,
    looks: LookSchedule,
    /// With BPF: when listeners and lingering connections are looked at.
    next_glance: Instant,
}

impl Observer {
    fn new(
        (here, ring): (Vec<Namespace>, Option<Ring>),
        (orders, woken, told): (commands::Receiver<Order>, UnixDatagram, mpsc::Sender<Event>),
        pace: Duration,
        facts: Shared,
    ) -> Self {
        let now = Instant::now();
        Self {
            here,
            ring,
            orders,
            woken,
            told,
            pace,
            watched: Watch::new(),
            ring_follows: true,
            known: BTreeMap::new(),
            listed: BTreeSet::new(),
            elders: BTreeMap::new(),
            opened_here: BTreeSet::new(),
            lingering: BTreeSet::new(),
            lingered: (ANY, NOBODY),
            listeners: None,
            listening: BTreeMap::new(),
            changes: BTreeMap::new(),
            touched: BTreeSet::new(),
            comparing: false,
            counted: Facts::default(),
            facts,
            token: 0,
            asked: false,
            throttle: Throttle::default(),
            is_throttled: false,
            started: now,
            looks: LookSchedule::new(now, pace),
            next_glance: now,
        }
    }

    fn run(mut self) {
        loop {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "cannot wait for the kernel; no more connections are reported");
                return;
            }
            match self.turn() {
                Ok(()) => {}
                Err(Stop::Over) => return,
                Err(Stop::Failed(error)) => {
                    tracing::warn!(%error, "a look at the kernel's sockets failed; trying again");
                    self.looks.retry(Instant::now());
                }
            }
        }
    }

    /// Waits for something to do.
    fn wait(&mut self) -> io::Result<()> {
        let next = self.looks.due();
        let next = if self.ring.is_some() { next.min(self.next_glance) } else { next };
        let allowed = self.started + Duration::from_nanos(self.throttle.due().0);
        let next = if self.is_throttled { allowed } else { next.max(allowed) };
        let timeout = next.saturating_duration_since(Instant::now());
        // Rounded up, so that the last fraction of a millisecond is not spun away.
        let timeout = PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        match &self.ring {
            Some(ring) => fds.push(PollFd::new(ring.fd(), PollFlags::POLLIN)),
            None => {
                let ends = self.here.iter().filter_map(|namespace| namespace.ends.as_ref());
                fds.extend(ends.map(|ends| PollFd::new(ends.fd(), PollFlags::POLLIN)));
            }
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let by_ring = self.ring.is_some() && fds[1].any() == Some(true);
        let by_order = fds[0].any() == Some(true);
        drop(fds);
        while self.woken.recv(&mut [0; 8]).is_ok() {}
        if by_ring && !by_order {
            thread::sleep(GATHER);
        }
        Ok(())
    }

    /// Whatever there is to do now.
    fn turn(&mut self) -> Result<(), Stop> {
        self.take_orders()?;
        self.read_ring()?;
        if self.ring.is_none() {
            self.read_ends()?;
        }
        self.flush()?;
        let (now, began) = (Instant::now(), self.now());
        self.is_throttled = !self.throttle.is_due(began);
        if self.is_throttled {
            return Ok(());
        }
        // Only watched ones are listed.
        let all_listed = self.listed.len() == self.watched.len();
        if self.ring.is_some() && all_listed && (self.asked || now >= self.next_glance) {
            self.look_briefly()?;
            let paces = if self.lingering.is_empty() { LISTENERS_SHARE } else { 1 };
            self.next_glance = Instant::now() + self.pace * paces;
        }
        if now >= self.looks.due() || self.asked || !all_listed {
            self.looks.begin();
            self.look()?;
            let verifies = self.ring.is_some() && self.elders.is_empty();
            let kind = if verifies { LookKind::Verify } else { LookKind::Observe };
            self.looks.finish(Instant::now(), now.elapsed(), kind);
        }
        self.throttle.took(began, self.now());
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Takes all orders that wait. Of several lists of VIPAs the last one counts.
    fn take_orders(&mut self) -> Result<(), Stop> {
        let mut watched = None;
        loop {
            match self.orders.try_recv() {
                Ok(Order::Watch(vipas)) => watched = Some(vipas),
                Ok(Order::Look(token)) => (self.token, self.asked) = (token, true),
                Ok(Order::Stop) | Err(commands::TryRecvError::Disconnected) => return Err(Stop::Over),
                Err(commands::TryRecvError::Empty) => break,
            }
        }
        if let Some(vipas) = watched {
            self.watched = vipas.into_iter().map(|watched| (watched.vipa, watched)).collect();
            self.forget_unwatched();
            self.listeners = None;
            self.ring_follows = false;
            self.looks.hasten(Instant::now());
        }
        if let Some(ring) = &mut self.ring
            && !self.ring_follows
        {
            ring.watch(&addresses(&self.watched))?;
            self.ring_follows = true;
        }
        Ok(())
    }

    fn forget_unwatched(&mut self) {
        let watched = &self.watched;
        self.known.retain(|vipa, _| watched.contains_key(vipa));
        self.listed.retain(|vipa| watched.contains_key(vipa));
        self.elders.retain(|vipa, _| watched.contains_key(vipa));
        self.listening.retain(|vipa, _| watched.contains_key(vipa));
        self.opened_here.retain(|(vipa, _)| watched.contains_key(vipa));
        self.lingering.retain(|(vipa, _)| watched.contains_key(vipa));
        self.counted.keep(watched);
    }

    /// Takes in what the ring has.
    fn read_ring(&mut self) -> Result<(), Stop> {
        let mut unclear = Vec::new();
        for _ in 0..TURN {
            let Some(happened) = self.ring.as_mut().and_then(Ring::next) else { break };
            match happened {
                Happening::Listening => self.next_glance = Instant::now(),
                Happening::Connection { local, remote, became } => {
                    let Some((vipa, connection)) = connection_of(&self.watched, local, remote) else { continue };
                    if self.comparing {
                        self.touched.insert((vipa, connection));
                    }
                    match became {
                        Became::State(state) => {
                            if state == TcpState::SynSent {
                                self.opened_here.insert((vipa, connection));
                            }
                            self.note(vipa, connection, state_of(state));
                        }
                        Became::Gone => self.note(vipa, connection, None),
                        Became::Unclear => unclear.push((vipa, connection)),
                    }
                }
            }
        }
        for (vipa, connection) in unclear {
            self.linger(vipa, connection)?;
        }
        if let Some(ring) = &mut self.ring
            && ring.has_lost()?
        {
            tracing::warn!("more happened to connections than the ring has room for; looking at all of them");
            self.counted.overflows += 1;
            self.looks.lose(Instant::now());
        }
        Ok(())
    }

    /// Whether a connection whose server's socket is gone lives on; the next glance asks again.
    fn linger(&mut self, vipa: IpAddr, connection: Connection) -> io::Result<()> {
        let state = self.find(vipa, &connection)?;
        self.note(vipa, connection, state);
        if state == Some(ConnectionState::Closing) {
            self.lingering.insert((vipa, connection));
        } else {
            self.lingering.remove(&(vipa, connection));
        }
        Ok(())
    }

    /// A connection is known to be in this state, or to have ended.
    fn note(&mut self, vipa: IpAddr, connection: Connection, state: Option<ConnectionState>) {
        let Some(known) = self.known.get_mut(&vipa) else { return };
        let before = state.and_then(|state| known.insert(connection, state));
        let change = match state {
            Some(state) if before != Some(state) => {
                if !self.opened_here.contains(&(vipa, connection)) {
                    self.counted.begun(&self.watched, vipa, &connection, before, state);
                }
                Change::Opened(state)
            }
            None if known.remove(&connection).is_some() => Change::Closed,
            _ => return,
        };
        if state.is_none() {
            self.opened_here.remove(&(vipa, connection));
            self.lingering.remove(&(vipa, connection));
            if let Some(elders) = self.elders.get_mut(&vipa) {
                elders.remove(&connection);
            }
        }
        self.changes.entry(vipa).or_default().push(Record { connection, change });
    }

    /// Takes in the kernel's notices of ended sockets.
    fn read_ends(&mut self) -> io::Result<()> {
        let mut ended: BTreeSet<(IpAddr, Connection)> = BTreeSet::new();
        let (watched, elders, by_ring) = (&self.watched, &self.elders, self.ring.is_some());
        let mut notices = Notices::All;
        for ends in self.here.iter_mut().filter_map(|namespace| namespace.ends.as_mut()) {
            let read = ends.read(|socket| {
                let found = connection_of(watched, socket.local, socket.remote).filter(|_| socket.remote.1 != 0);
                let is_ours = |(vipa, connection): &(IpAddr, Connection)| {
                    !by_ring || elders.get(vipa).is_some_and(|elders| elders.get(connection).is_some())
                };
                ended.extend(found.filter(is_ours));
            })?;
            if read == Notices::SomeLost {
                notices = read;
            }
        }
        if ended.len() > MANY_ENDS {
            notices = Notices::SomeLost;
            ended.clear();
        }
        for (vipa, connection) in ended {
            let state = self.find(vipa, &connection)?;
            let is_known = self.known.get(&vipa).is_some_and(|known| known.get(&connection).is_some());
            if state.is_none() && !is_known && !by_ring {
                // It came and went between two looks; its router forgets it by itself.
                self.counted.begun(&self.watched, vipa, &connection, None, ConnectionState::Established);
            }
            self.note(vipa, connection, state);
        }
        if notices == Notices::SomeLost {
            self.looks.lose(Instant::now());
        }
        Ok(())
    }

    /// With BPF: what the ring does not tell of and is cheap to ask for. Answers who asked for a look: the ring is the truth.
    fn look_briefly(&mut self) -> Result<(), Stop> {
        self.read_ends()?;
        let after = self.lingering.range((Bound::Excluded(self.lingered), Bound::Unbounded));
        let asked: Vec<_> =
            after.chain(&self.lingering).take(MANY_LINGERING.min(self.lingering.len())).copied().collect();
        for (vipa, connection) in asked {
            self.lingered = (vipa, connection);
            self.linger(vipa, connection)?;
        }
        self.elders.retain(|_, elders| !elders.is_empty());
        if self.elders.is_empty() && self.started.elapsed() > BEGINNING {
            self.here.iter_mut().for_each(|namespace| namespace.ends = None);
        }
        self.flush()?;
        self.tell_listening()?;
        // What is known lacks what the ring has lost, so only a whole look answers then.
        if !self.looks.is_incomplete() && std::mem::take(&mut self.asked) {
            self.tell(Event::Looked { token: self.token })?;
            // Handshakes under way are in the list only.
            self.looks.hasten(Instant::now());
        }
        Ok(())
    }

    /// The state of this very connection now; `None` when it has ended.
    fn find(&mut self, vipa: IpAddr, connection: &Connection) -> io::Result<Option<ConnectionState>> {
        let client = (connection.client.ip(), connection.client.port());
        for local in sockets_of(&self.watched, vipa, connection) {
            for namespace in &mut self.here {
                if let Some(socket) = namespace.diag.find(local, client)?
                    && let Some(state) = state_of(socket.state)
                {
                    return Ok(Some(state));
                }
            }
        }
        Ok(None)
    }

    /// One whole look. Of a VIPA that has not been looked at yet everything is told, of others what has changed.
    fn look(&mut self) -> Result<(), Stop> {
        self.comparing = true;
        let looked = self.look_and_compare();
        self.comparing = false;
        self.touched = BTreeSet::new();
        looked
    }

    fn look_and_compare(&mut self) -> Result<(), Stop> {
        let (token, asked) = (self.token, self.asked);
        let fresh: BTreeSet<IpAddr> = self.watched.keys().filter(|vipa| !self.listed.contains(vipa)).copied().collect();
        if !fresh.is_empty() {
            // Nothing is known yet that a list could lack; so another list is compared with this one. What an earlier
            // attempt that failed has left does not count.
            self.known.extend(fresh.iter().map(|vipa| (*vipa, Live::default())));
            self.elders.retain(|vipa, _| !fresh.contains(vipa));
            let first = self.list()?;
            self.read_ring()?;
            self.begin(&fresh, first);
        }
        let listed = self.list()?;
        self.read_ring()?;
        self.compare(&fresh, &listed)?;
        for vipa in fresh {
            self.changes.remove(&vipa);
            let connections = self.known.get(&vipa).map_or_else(Vec::new, |known| known.iter().collect());
            self.tell(Event::Holds { vipa, connections })?;
            self.listed.insert(vipa);
        }
        self.flush()?;
        self.tell_listening()?;
        if asked {
            self.asked = false;
            self.tell(Event::Looked { token })?;
        }
        Ok(())
    }

    /// What is listed of a VIPA is known now, and as far as the ring has not spoken of it, older than the ring.
    fn begin(&mut self, fresh: &BTreeSet<IpAddr>, mut listed: BTreeMap<IpAddr, Live>) {
        for vipa in fresh {
            let mut list = listed.remove(vipa).unwrap_or_default();
            let from_ring = std::mem::take(self.known.entry(*vipa).or_default());
            let touched = self.touched.range((*vipa, NOBODY)..).take_while(|(of, _)| of == vipa);
            for (_, connection) in touched.clone() {
                list.remove(connection);
            }
            if self.ring.is_some() && !list.is_empty() {
                self.elders.insert(*vipa, list.clone());
            }
            list.extend(from_ring.iter());
            self.known.insert(*vipa, list);
        }
    }

    /// Finds out who is right where a list says other than what is known.
    fn compare(&mut self, fresh: &BTreeSet<IpAddr>, listed: &BTreeMap<IpAddr, Live>) -> Result<(), Stop> {
        let by_ring = self.ring.is_some();
        let mut found = Vec::new();
        for (vipa, list) in listed {
            let Some(known) = self.known.get(vipa) else { continue };
            let missing = known.without(list).filter(|(connection, _)| list.get(connection).is_none());
            let missing: Vec<_> = missing.map(|(connection, _)| connection).collect();
            let news: Vec<_> = list.without(known).collect();
            for connection in missing {
                if !self.touched.contains(&(*vipa, connection)) {
                    found.push((*vipa, connection, self.find(*vipa, &connection)?));
                }
            }
            for (connection, state) in news {
                if !by_ring {
                    found.push((*vipa, connection, Some(state)));
                } else if !self.touched.contains(&(*vipa, connection)) {
                    found.push((*vipa, connection, self.find(*vipa, &connection)?));
                }
            }
        }
        // What happened while we asked is younger than the answers.
        self.read_ring()?;
        let mut repaired = 0;
        for (vipa, connection, state) in found {
            if self.touched.contains(&(vipa, connection)) {
                continue;
            }
            let before = self.known.get(&vipa).and_then(|known| known.get(&connection));
            let is_elder = self.elders.get(&vipa).is_some_and(|elders| elders.get(&connection).is_some());
            let is_lingering = self.lingering.contains(&(vipa, connection));
            if before != state
                && !is_elder
                && !is_lingering
                && !fresh.contains(&vipa)
                && [before, state].iter().all(|state| *state != Some(ConnectionState::HalfOpen))
            {
                repaired += 1;
            }
            self.note(vipa, connection, state);
        }
        if by_ring && repaired > 0 {
            self.counted.repaired += repaired;
            let all = self.counted.repaired;
            tracing::warn!("BPF and sock_diag differed about {repaired} connections; repaired, {all} since the start");
        }
        Ok(())
    }

    /// The connections of every watched VIPA as the kernel lists them.
    fn list(&mut self) -> io::Result<BTreeMap<IpAddr, Live>> {
        let mut lists: BTreeMap<IpAddr, Live> = self.watched.keys().map(|vipa| (*vipa, Live::default())).collect();
        if lists.is_empty() {
            return Ok(lists);
        }
        let watched = &self.watched;
        for namespace in &mut self.here {
            namespace.diag.dump(Protocol::Tcp, States::CONNECTIONS, |socket| {
                if let Some((vipa, connection)) = connection_of(watched, socket.local, socket.remote)
                    && let Some(list) = lists.get_mut(&vipa)
                    && let Some(state) = state_of(socket.state)
                {
                    // One that is listed twice has come further in between.
                    list.insert(connection, state);
                }
            })?;
        }
        Ok(lists)
    }

    fn flush(&mut self) -> Result<(), Over> {
        self.facts.write(&self.counted);
        for (vipa, records) in std::mem::take(&mut self.changes) {
            // Of a VIPA that is not listed yet `Holds` will tell everything.
            if self.listed.contains(&vipa) {
                self.tell(Event::Changed { vipa, records })?;
            }
        }
        Ok(())
    }

    fn tell(&self, event: Event) -> Result<(), Over> {
        self.told.blocking_send(event).map_err(|_| Over)
    }
}

#[cfg(test)]
mod tests;
