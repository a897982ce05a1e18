//! What the kernel knows: a thread that looks at its socket tables and tells what it saw.
//!
//! ```text
//!   Watch, Look ──► thread ──► Holds, Listening … Looked      a whole look: on demand, and at its own pace
//!                      ▲
//!   socket ended ──────┘   ──► Changed (closed)               at once, from the kernel's notices
//! ```
//! A connection told to have ended is forgotten by its router, so neither a notice nor a list is believed alone: a
//! notice may be of a connection's former socket, and a list may pass over one that lives. Before an end is told, the
//! kernel is asked for that very connection.
//!
//! A look costs the kernel a walk over all its sockets, so its pace follows its cost: at most a tenth of a core.

pub(crate) mod diag;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    os::{fd::AsFd, unix::net::UnixDatagram},
    sync::mpsc as commands,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use vipa_cluster::target::{Event, Watched};
use vipa_model::{Connection, ConnectionState, Protocol};
use vipa_protocol::{Change, Record};

use self::diag::{Diag, Ends, Notices, Socket, States, TcpState};

/// A look may take this share of the time: one part in `LOOK_SHARE`.
const LOOK_SHARE: u32 = 10;
/// The longest time between two looks, whatever they cost.
const SLOWEST: Duration = Duration::from_secs(5);
/// Ends whose connections are asked for one by one; more of them at once, as when a server dies, are left to a look.
const MANY_ENDS: usize = 512;
/// Listening ports told of one VIPA; a service on all ports of a busy host has fewer.
const MAX_LISTENING: usize = 8192;

/// The asking end; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Kernel {
    orders: commands::Sender<Order>,
    wake: UnixDatagram,
}

#[derive(Debug)]
enum Order {
    Watch(Vec<Watched>),
    Look(u64),
    Stop,
}

impl Kernel {
    /// Starts looking; what is seen comes out of the receiver, in the order it was seen.
    ///
    /// `pace` is the shortest time between two looks that nobody asked for.
    pub(crate) fn start(pace: Duration) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let (orders, orders_in) = commands::channel();
        let (wake, woken) = UnixDatagram::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        // Bounded: a control loop that cannot follow slows the looking down, nothing else.
        let (told, events) = mpsc::channel(1024);
        let observer = Observer {
            diag: Diag::open()?,
            ends: Ends::open()?,
            orders: orders_in,
            woken,
            told,
            watched: BTreeMap::new(),
            known: BTreeMap::new(),
            token: 0,
        };
        thread::Builder::new().name("kernel".into()).spawn(move || observer.run(pace))?;
        Ok((Self { orders, wake }, events))
    }

    pub(crate) fn watch(&self, vipas: Vec<Watched>) {
        self.order(Order::Watch(vipas));
    }

    /// A look begun after this is followed by `Looked` of this token or a later one.
    pub(crate) fn look(&self, token: u64) {
        self.order(Order::Look(token));
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

struct Observer {
    diag: Diag,
    ends: Ends,
    orders: commands::Receiver<Order>,
    woken: UnixDatagram,
    told: mpsc::Sender<Event>,
    watched: BTreeMap<IpAddr, Watched>,
    /// What the last look saw, sorted.
    known: BTreeMap<IpAddr, Vec<(Connection, ConnectionState)>>,
    /// Of the last look asked for.
    token: u64,
}

/// Why the thread has nothing more to do.
struct Over;

impl Observer {
    fn run(mut self, pace: Duration) {
        let mut next = Instant::now();
        loop {
            match self.wait(next) {
                Ok(Wish::Look) => {}
                Ok(Wish::Nothing) => continue,
                Ok(Wish::End) => return,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for the kernel; no more connections are reported");
                    return;
                }
            }
            let began = Instant::now();
            match self.look() {
                Ok(Ok(())) => {}
                Ok(Err(Over)) => return,
                Err(error) => tracing::warn!(%error, "a look at the kernel's sockets failed; trying again"),
            }
            next = Instant::now() + (began.elapsed() * LOOK_SHARE).clamp(pace, SLOWEST.max(pace));
        }
    }

    /// Waits for an order, for notices of ends, or until `next`.
    fn wait(&mut self, next: Instant) -> io::Result<Wish> {
        let timeout = next.saturating_duration_since(Instant::now());
        // Rounded up, so that the last fraction of a millisecond is not spun away.
        let timeout = PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let mut fds =
            [PollFd::new(self.ends.fd(), PollFlags::POLLIN), PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while self.woken.recv(&mut [0; 8]).is_ok() {}
        let mut wish = if Instant::now() >= next { Wish::Look } else { Wish::Nothing };
        loop {
            match self.orders.try_recv() {
                Ok(Order::Watch(vipas)) => {
                    self.watched = vipas.into_iter().map(|watched| (watched.vipa, watched)).collect();
                    self.known.retain(|vipa, _| self.watched.contains_key(vipa));
                    wish = Wish::Look;
                }
                Ok(Order::Look(token)) => {
                    self.token = token;
                    wish = Wish::Look;
                }
                Ok(Order::Stop) | Err(commands::TryRecvError::Disconnected) => return Ok(Wish::End),
                Err(commands::TryRecvError::Empty) => break,
            }
        }
        match self.tell_ends()? {
            Ok(Notices::All) => Ok(wish),
            Ok(Notices::SomeLost) => Ok(Wish::Look),
            Err(Over) => Ok(Wish::End),
        }
    }

    fn tell_ends(&mut self) -> io::Result<Result<Notices, Over>> {
        let mut ended: BTreeSet<(IpAddr, Connection)> = BTreeSet::new();
        let watched = &self.watched;
        let mut notices = self.ends.read(|socket| {
            if let Some((vipa, connection)) = connection_of(watched, &socket).filter(|_| socket.remote.1 != 0) {
                ended.insert((vipa, connection));
            }
        })?;
        if ended.len() > MANY_ENDS {
            notices = Notices::SomeLost;
            ended.clear();
        }
        let mut changes: BTreeMap<IpAddr, Vec<Record>> = BTreeMap::new();
        for (vipa, connection) in ended {
            let change = self.find(vipa, &connection)?.map_or(Change::Closed, Change::Opened);
            changes.entry(vipa).or_default().push(Record { connection, change });
        }
        for (vipa, records) in changes {
            if self.tell(Event::Changed { vipa, records }).is_err() {
                return Ok(Err(Over));
            }
        }
        Ok(Ok(notices))
    }

    /// The state of this very connection now; `None` when it has ended.
    fn find(&mut self, vipa: IpAddr, connection: &Connection) -> io::Result<Option<ConnectionState>> {
        for local in self.sockets_of(vipa, connection) {
            let client = connection.client;
            if let Some(socket) = self.diag.find(local, (client.ip(), client.port()))?
                && let Some(state) = state_of(socket.state)
            {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Under which addresses and ports the kernel may have a connection to a VIPA: the VIPA's, and those of `nat`.
    fn sockets_of(&self, vipa: IpAddr, connection: &Connection) -> Vec<(IpAddr, u16)> {
        let translated = self.watched.get(&vipa).map_or(&[][..], |watched| &watched.translated);
        let translated = translated
            .iter()
            .filter_map(|service| Some((service.address, service.port_here(connection.protocol, connection.port)?)));
        std::iter::once((vipa, connection.port)).chain(translated).collect()
    }

    /// One whole look, told as `Holds` and `Listening` of every watched VIPA, then `Looked`.
    fn look(&mut self) -> io::Result<Result<(), Over>> {
        let token = self.token;
        if self.watched.keys().any(|vipa| !self.known.contains_key(vipa)) {
            // Nothing is known that the list could lack; a second list is compared with this one.
            self.known = self.list()?;
        }
        let mut holds = self.list()?;
        for (vipa, list) in &mut holds {
            let mut passed_over = Vec::new();
            for connection in missing(self.known.get(vipa).map_or(&[], Vec::as_slice), list) {
                passed_over.extend(self.find(*vipa, &connection)?.map(|state| (connection, state)));
            }
            list.extend(passed_over);
            list.sort_unstable();
        }
        self.known.clone_from(&holds);
        let mut listening = self.listening()?;
        for (vipa, connections) in holds {
            let ports = listening.remove(&vipa).unwrap_or_default().into_iter().take(MAX_LISTENING).collect();
            let told = self
                .tell(Event::Holds { vipa, connections })
                .and_then(|()| self.tell(Event::Listening { vipa, listening: ports }));
            if told.is_err() {
                return Ok(Err(Over));
            }
        }
        Ok(self.tell(Event::Looked { token }))
    }

    /// The connections of every watched VIPA as the kernel lists them, sorted, each once.
    fn list(&mut self) -> io::Result<BTreeMap<IpAddr, Vec<(Connection, ConnectionState)>>> {
        let mut lists: BTreeMap<IpAddr, Vec<(Connection, ConnectionState)>> =
            self.watched.keys().map(|vipa| (*vipa, Vec::new())).collect();
        if lists.is_empty() {
            return Ok(lists);
        }
        let watched = &self.watched;
        self.diag.dump(Protocol::Tcp, States::CONNECTIONS, |socket| {
            if let Some((vipa, connection)) = connection_of(watched, &socket)
                && let Some(list) = lists.get_mut(&vipa)
                && let Some(state) = state_of(socket.state)
            {
                list.push((connection, state));
            }
        })?;
        for list in lists.values_mut() {
            list.sort_unstable();
            // One that was listed twice has come further in between.
            list.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    kept.1 = later.1;
                }
                same
            });
        }
        Ok(lists)
    }

    fn listening(&mut self) -> io::Result<BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>> {
        let mut found: BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>> = BTreeMap::new();
        for (protocol, states) in [(Protocol::Tcp, States::LISTENERS), (Protocol::Udp, States::UDP_BOUND)] {
            let served = self.watched.values().filter(|watched| watched.services.iter().any(|(p, _)| *p == protocol));
            let vipas: Vec<&Watched> = served.collect();
            if vipas.is_empty() {
                continue;
            }
            self.diag.dump(protocol, states, |socket| {
                let port = socket.local.1;
                for watched in &vipas {
                    for service in &watched.translated {
                        if accepts(&socket, service.address)
                            && let Some(vipa_port) = service.vipa_port(protocol, service.address, port)
                        {
                            found.entry(watched.vipa).or_default().insert((protocol, vipa_port));
                        }
                    }
                    let wanted = |(p, range): &(Protocol, _)| {
                        let range: &vipa_model::PortRange = range;
                        *p == protocol && range.contains(port)
                    };
                    let moved = watched.translated.iter().any(|service| service.vipa_port == Some(port));
                    if !moved && accepts(&socket, watched.vipa) && watched.services.iter().any(wanted) {
                        found.entry(watched.vipa).or_default().insert((protocol, port));
                    }
                }
            })?;
        }
        Ok(found)
    }

    fn tell(&self, event: Event) -> Result<(), Over> {
        self.told.blocking_send(event).map_err(|_| Over)
    }
}

/// The connections of `before` that `now` lacks; both sorted.
fn missing(before: &[(Connection, ConnectionState)], now: &[(Connection, ConnectionState)]) -> Vec<Connection> {
    let mut now = now.iter().peekable();
    let mut missing = Vec::new();
    for (connection, _) in before {
        while now.next_if(|(held, _)| held < connection).is_some() {}
        if now.peek().is_none_or(|(held, _)| held != connection) {
            missing.push(*connection);
        }
    }
    missing
}

enum Wish {
    Look,
    Nothing,
    End,
}

/// Whether packets to `vipa` reach a listener or bound socket.
pub(crate) fn accepts(socket: &Socket, vipa: IpAddr) -> bool {
    match (socket.local.0, vipa) {
        (local, vipa) if local == vipa => true,
        (IpAddr::V4(local), IpAddr::V4(_)) => local.is_unspecified(),
        (IpAddr::V6(local), IpAddr::V6(_)) => local.is_unspecified(),
        (IpAddr::V6(local), IpAddr::V4(_)) => local.is_unspecified() && socket.takes_ipv4,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

/// Whose connection a socket is: a VIPA's, under its own address, or by `nat` under this target's. Of several VIPAs that
/// are translated to one port here the first is named, because the kernel knows no more.
fn connection_of(watched: &BTreeMap<IpAddr, Watched>, socket: &Socket) -> Option<(IpAddr, Connection)> {
    let (address, port) = socket.local;
    let connection = |port| Connection { protocol: Protocol::Tcp, client: SocketAddr::from(socket.remote), port };
    if watched.contains_key(&address) {
        return Some((address, connection(port)));
    }
    watched.values().find_map(|watched| {
        let ports = watched.translated.iter().find_map(|service| service.vipa_port(Protocol::Tcp, address, port));
        Some((watched.vipa, connection(ports?)))
    })
}

fn state_of(state: TcpState) -> Option<ConnectionState> {
    match state {
        TcpState::SynReceived => Some(ConnectionState::HalfOpen),
        TcpState::Established => Some(ConnectionState::Established),
        TcpState::FinWait1 | TcpState::FinWait2 | TcpState::CloseWait | TcpState::LastAck | TcpState::Closing => {
            Some(ConnectionState::Closing)
        }
        TcpState::Close | TcpState::Listen => None,
    }
}

#[cfg(test)]
mod tests;
