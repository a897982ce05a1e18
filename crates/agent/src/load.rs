//! How this host fares: a thread that looks at its accept queues and its processors, and says so once a second, and at
//! once when a listener comes into trouble or out of it.
//!
//! The kernel's list of listeners is short and cheap, so it is read every `LOOK`. The long list of connections is
//! read only when a queue is suspect (`queues`), and never for more than a tenth of the time.

mod headroom;
mod host;
mod queues;

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::mpsc as commands,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use vipa_cluster::target::Watched;
use vipa_model::{Moment, Protocol};
use vipa_protocol::{
    Accepting, HostLoad, ListenerLoad,
    load::{FULL_HEADROOM, MAX_LISTENER_LOADS},
};

use self::{
    headroom::{Headroom, left_permille},
    host::HostGauge,
    queues::{End, Fortune, Question, Queues, SAMPLE, Seen},
};
use crate::kernel::{
    diag::{Diag, Socket, States, TcpState},
    facts::{Place, is_of},
    whose::{accepts, services_of},
};

/// Between two looks at the accept queues.
const LOOK: Duration = Duration::from_millis(100);
/// The host's figures are told this often.
const TELL: Duration = Duration::from_secs(1);
/// Listening sockets looked at; a host with more has most of them for others than Vipa.
const MAX_LISTENERS: usize = 4096;
/// Listing all connections may take this share of the time: one part in `LIST_SHARE`.
const LIST_SHARE: u32 = 10;

/// What the thread tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadReport {
    pub(crate) host: HostLoad,
    pub(crate) headroom: u8,
    pub(crate) listeners: Vec<ListenerLoad>,
    /// Connections of each service that waited to be accepted in vain, since it is watched.
    pub(crate) late: BTreeMap<Place, u64>,
}

/// The asking end; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct LoadWatch {
    orders: commands::Sender<Vec<Watched>>,
}

impl LoadWatch {
    pub(crate) fn start() -> io::Result<(Self, mpsc::Receiver<LoadReport>)> {
        let (orders, watched) = commands::channel();
        // Of several conditions that were not read, the last is what counts; so few are kept.
        let (told, conditions) = mpsc::channel(8);
        let observer = Observer {
            diag: Diag::open()?,
            watched: Vec::new(),
            listeners: Vec::new(),
            late: BTreeMap::new(),
            queues: Queues::default(),
            gauge: HostGauge::default(),
            headroom: Headroom::default(),
            began: Instant::now(),
            list_again: Instant::now(),
        };
        thread::Builder::new().name("load".into()).spawn(move || observer.run(&watched, &told))?;
        Ok((Self { orders }, conditions))
    }

    /// From now on these VIPAs' listeners matter.
    pub(crate) fn watch(&self, vipas: Vec<Watched>) {
        // The thread ends only when we do.
        let _ = self.orders.send(vipas);
    }
}

struct Observer {
    diag: Diag,
    watched: Vec<Watched>,
    /// As last seen.
    listeners: Vec<Socket>,
    late: BTreeMap<Place, u64>,
    queues: Queues,
    gauge: HostGauge,
    headroom: Headroom,
    began: Instant,
    /// Before that, connections are not listed again.
    list_again: Instant,
}

impl Observer {
    fn run(mut self, orders: &commands::Receiver<Vec<Watched>>, told: &mpsc::Sender<LoadReport>) {
        let (host, headroom) = (HostLoad::default(), FULL_HEADROOM);
        let mut last = LoadReport { host, headroom, listeners: Vec::new(), late: BTreeMap::new() };
        let mut measured: Option<Instant> = None;
        loop {
            match orders.recv_timeout(LOOK) {
                Ok(watched) => {
                    // Of several lists the last one counts.
                    self.watched = orders.try_iter().last().unwrap_or(watched);
                    self.late.retain(|place, _| self.watched.iter().any(|watched| is_of(watched, *place)));
                }
                Err(commands::RecvTimeoutError::Timeout) => {}
                Err(commands::RecvTimeoutError::Disconnected) => return,
            }
            let listeners = self.look().unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot look at the accept queues; trying again");
                last.listeners.clone()
            });
            let mut tell = troubles(&listeners) != troubles(&last.listeners);
            last.listeners = listeners;
            last.late.clone_from(&self.late);
            let elapsed = measured.map(|measured| measured.elapsed());
            if elapsed.is_none_or(|elapsed| elapsed >= TELL) {
                measured = Some(Instant::now());
                tell = true;
                match self.gauge.read(elapsed.unwrap_or_default()) {
                    Ok(host) => {
                        last.host = host;
                        let left = left_permille(&host, self.queues.fullest_permille());
                        last.headroom = self.headroom.measure(self.now(), left);
                    }
                    Err(error) => tracing::warn!(%error, "cannot read the host's load; trying again"),
                }
            }
            if tell && told.blocking_send(last.clone()).is_err() {
                return;
            }
        }
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Looks at the accept queues, and asks the kernel what follows from that.
    fn look(&mut self) -> io::Result<Vec<ListenerLoad>> {
        if self.watched.is_empty() {
            return Ok(Vec::new());
        }
        let mut listeners: Vec<Socket> = Vec::new();
        let watched = &self.watched;
        self.diag.dump(Protocol::Tcp, States::LISTENERS, |socket| {
            if listeners.len() < MAX_LISTENERS && watched.iter().any(|watched| vipa_port(watched, &socket).is_some()) {
                listeners.push(socket);
            }
        })?;
        let seen = |socket: &Socket| Seen {
            cookie: socket.cookie,
            local: socket.local,
            waiting: socket.waiting,
            room: socket.room,
        };
        let seen: Vec<Seen> = listeners.iter().map(seen).collect();
        let questions = self.queues.observe(self.now(), &seen);
        let before = std::mem::replace(&mut self.listeners, listeners);
        self.count_late(&before);
        for question in questions {
            self.answer(question)?;
        }
        Ok(self.tell())
    }

    /// Counts those that waited in vain under the services of their listeners, which may be gone.
    fn count_late(&mut self, before: &[Socket]) {
        for (cookie, count) in self.queues.take_late() {
            let Some(socket) = before.iter().find(|socket| socket.cookie == cookie) else { continue };
            for watched in &self.watched {
                let Some(port) = vipa_port(watched, socket) else { continue };
                for ports in services_of(watched, Protocol::Tcp, port) {
                    *self.late.entry((watched.vipa, ports)).or_default() += u64::from(count);
                }
            }
        }
    }

    fn answer(&mut self, question: Question) -> io::Result<()> {
        match question {
            Question::WhoWaits { cookie, port } => {
                // Asked again at the next look.
                if Instant::now() >= self.list_again {
                    let who = self.who_waits(port)?;
                    self.queues.sampled(cookie, who);
                }
            }
            Question::WhatOfThem { cookie, who } => {
                let fortunes: io::Result<Vec<Fortune>> =
                    who.into_iter().map(|(local, remote)| self.fortune(local, remote)).collect();
                let now = self.now();
                self.queues.learnt(now, cookie, &fortunes?);
            }
        }
        Ok(())
    }

    fn who_waits(&mut self, port: u16) -> io::Result<Vec<(End, End)>> {
        let began = Instant::now();
        let mut who = Vec::new();
        self.diag.dump(Protocol::Tcp, States::ACCEPTABLE, |socket| {
            if who.len() < SAMPLE && socket.local.1 == port && socket.is_nobodys {
                who.push((socket.local, socket.remote));
            }
        })?;
        self.list_again = Instant::now() + began.elapsed() * LIST_SHARE;
        Ok(who)
    }

    fn fortune(&mut self, local: End, remote: End) -> io::Result<Fortune> {
        Ok(match self.diag.find(local, remote)? {
            None => Fortune::Gone,
            // One that is nobody's and closing was accepted and closed.
            Some(socket) => match socket.state {
                TcpState::Established | TcpState::CloseWait if socket.is_nobodys => Fortune::Waits,
                _ => Fortune::Accepted,
            },
        })
    }

    /// What is notable, by VIPA and port; listeners that share a port are told of as one.
    fn tell(&self) -> Vec<ListenerLoad> {
        let mut told: BTreeMap<(IpAddr, u16), ListenerLoad> = BTreeMap::new();
        for (seen, accepting) in self.queues.notable() {
            let Some(socket) = self.listeners.iter().find(|socket| socket.cookie == seen.cookie) else { continue };
            for watched in &self.watched {
                let Some(port) = vipa_port(watched, socket) else { continue };
                let Watched { vipa, .. } = *watched;
                let load = told.entry((vipa, port)).or_insert(ListenerLoad {
                    vipa,
                    protocol: Protocol::Tcp,
                    port,
                    waiting: 0,
                    room: 0,
                    accepting: Accepting::Yes,
                });
                load.waiting = load.waiting.saturating_add(seen.waiting);
                load.room = load.room.saturating_add(seen.room);
                // The kernel deals connections out to all who share a port: one that does not serve loses its part.
                load.accepting = load.accepting.max(accepting);
            }
        }
        // Those in trouble first, should there be too many.
        let mut told: Vec<ListenerLoad> = told.into_values().collect();
        told.sort_by_key(|load| std::cmp::Reverse(load.accepting));
        told.truncate(MAX_LISTENER_LOADS);
        told.sort_by_key(|load| (load.vipa, load.port));
        told
    }
}

/// The port of the VIPA whose connections a listener takes; `None`: of none that matters.
fn vipa_port(watched: &Watched, socket: &Socket) -> Option<u16> {
    let port = socket.local.1;
    let translated = watched.translated.iter().find_map(|service| {
        let here = accepts(socket, service.address);
        here.then(|| service.vipa_port(Protocol::Tcp, service.address, port)).flatten()
    });
    let plain = || {
        let wanted =
            watched.services.iter().any(|(protocol, ports)| *protocol == Protocol::Tcp && ports.contains(port));
        (wanted && accepts(socket, watched.vipa)).then_some(port)
    };
    translated.or_else(plain)
}

fn troubles(listeners: &[ListenerLoad]) -> Vec<(IpAddr, u16, Accepting)> {
    let troubled = listeners.iter().filter(|load| load.accepting != Accepting::Yes);
    troubled.map(|load| (load.vipa, load.port, load.accepting)).collect()
}
