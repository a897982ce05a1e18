//! The client's end: many long-lived connections, and a few fresh ones all the time.
//!
//! One thread, one task per connection. Orders come as lines on standard input:
//!
//! - `mark NS`: from now on measure from this moment of the machine's monotonic clock;
//! - `fresh N`: open, use and close N fresh connections now;
//! - `pause`, `resume`: begin no exchange and no fresh connection in between;
//! - `finish`: one last exchange on every connection, then close all in good order and end.
//!
//! When the input ends, so does the process. A client that reports in words has no input: SIGTERM and SIGINT finish it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc, watch},
    task::spawn_local,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    REPORT, SETTLE, STALL, clock,
    frame::{Frame, Kind, Trouble, payload, scramble},
    report::{FAULTS, Report},
};

/// Connections being opened at the same time.
const OPENING: usize = 64;
/// Time after which a fresh connection without an answer has failed; a lost SYN is repeated after 1 s and 3 s.
const FRESH_PATIENCE: Duration = Duration::from_secs(7);
/// Fresh connections are begun this often; at higher rates several at once.
const TICKS_PER_SECOND: u32 = 250;
/// Exchanges of a fresh connection before it is closed.
const FRESH_EXCHANGES: u64 = 3;
/// Interval of reports for a person.
const WATCHED: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct ClientSettings {
    pub vipa: SocketAddr,
    /// Source addresses, used in turn; the kernel chooses when empty.
    pub sources: Vec<IpAddr>,
    pub connections: usize,
    /// Between two messages of one connection.
    pub interval: Duration,
    /// Fresh connections a second, all the time.
    pub fresh_per_second: u32,
    /// Time without an answer after which a connection is broken.
    pub patience: Duration,
    pub voice: Voice,
}

/// The reader of the client's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// The driver, which gives orders.
    Json,
    /// A person who watches.
    Words,
}

/// Runs until it is told to finish; one report a line on standard output.
pub fn run(settings: ClientSettings) -> Result<()> {
    ensure!(settings.patience > STALL, "the patience must be longer than a stall, {STALL:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run_on(settings))
}

/// State that all tasks of the process share.
struct Shared {
    settings: ClientSettings,
    tally: RefCell<ClientReport>,
    pace: watch::Sender<Pace>,
    /// Makes connection numbers differ from those of any other process.
    salt: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Talking,
    Paused,
    Finishing,
}

#[derive(Default)]
struct ClientReport {
    report: Report,
    mark: u64,
    longest_ns: u64,
    fresh_busy: u64,
    lanes: Vec<LongConnection>,
}

/// State of one long-lived connection for the reports.
#[derive(Clone, Default)]
struct LongConnection {
    /// When the message was sent whose answer is awaited; 0: no message.
    waiting_since: u64,
    last_answer: u64,
    /// `None` when the connection is not open.
    server: Option<[u8; 16]>,
}

async fn run_on(settings: ClientSettings) -> Result<()> {
    let shared = Rc::new(Shared {
        tally: RefCell::new(ClientReport {
            report: Report { asked: settings.connections as u64, ..Report::default() },
            mark: clock(),
            lanes: vec![LongConnection::default(); settings.connections],
            ..ClientReport::default()
        }),
        pace: watch::channel(Pace::Talking).0,
        salt: scramble(clock() ^ u64::from(std::process::id())),
        settings,
    });
    let opening = Rc::new(Semaphore::new(OPENING));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..shared.settings.connections {
        tasks.spawn_local(long_lived(Rc::clone(&shared), Rc::clone(&opening), number));
    }
    let fresh = spawn_local(freshen(Rc::clone(&shared)));
    let voice = shared.settings.voice;
    let (orders, period) = match voice {
        Voice::Json => (spawn_local(obey(Rc::clone(&shared))), REPORT),
        Voice::Words => (spawn_local(finish_on_signal(Rc::clone(&shared))), WATCHED),
    };
    let mut every = tokio::time::interval(period);
    loop {
        tokio::select! {
            _ = every.tick() => println!("{}", shared.tally.borrow_mut().tell(false, voice)),
            ended = tasks.join_next(), if !tasks.is_empty() => {
                if let Some(Err(error)) = ended { bail!("a connection's task failed: {error}"); }
            }
        }
        let finishing = *shared.pace.borrow() == Pace::Finishing;
        if orders.is_finished() && !finishing {
            bail!("the orders ended before `finish`");
        }
        // Ending in the middle of a fresh connection would be a reset that the server counts.
        if tasks.is_empty() && finishing && shared.tally.borrow().fresh_busy == 0 {
            break;
        }
    }
    fresh.abort();
    println!("{}", shared.tally.borrow_mut().tell(true, voice));
    let Report { asked, kept, .. } = shared.tally.borrow().report;
    ensure!(voice == Voice::Json || kept == asked, "{} of {asked} connections were lost", asked - kept);
    Ok(())
}

async fn finish_on_signal(shared: Rc<Shared>) {
    let both = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = both else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shared.pace.send_replace(Pace::Finishing);
}

async fn obey(shared: Rc<Shared>) {
    // A thread of its own reads: it may stay blocked when everything else has ended.
    let (sender, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut next_fresh = u64::MAX / 2;
    while let Some(line) = lines.recv().await {
        let (order, number) = line.split_once(' ').unwrap_or((&line, ""));
        match (order, number.parse::<u64>()) {
            ("mark", Ok(moment)) => shared.tally.borrow_mut().set_mark(moment),
            ("fresh", Ok(count)) => {
                for _ in 0..count {
                    next_fresh += 1;
                    spawn_local(fresh_one(Rc::clone(&shared), next_fresh));
                }
            }
            ("pause", _) => drop(shared.pace.send_replace(Pace::Paused)),
            ("resume", _) => drop(shared.pace.send_replace(Pace::Talking)),
            ("finish", _) => drop(shared.pace.send_replace(Pace::Finishing)),
            _ => eprintln!("unknown order {line:?}"),
        }
        shared.tally.borrow_mut().report.orders += 1;
    }
}

/// One long-lived connection from its opening to its end.
async fn long_lived(shared: Rc<Shared>, opening: Rc<Semaphore>, number: usize) {
    let id = scramble(shared.salt ^ number as u64);
    let mut talk = {
        let _turn = opening.acquire().await;
        match timeout(shared.settings.patience, open(&shared, id, number)).await {
            Ok(Ok(talk)) => talk,
            Ok(Err(error)) => return shared.tally.borrow_mut().unopened(&format!("connection {number}: {error}")),
            Err(_) => return shared.tally.borrow_mut().unopened(&format!("connection {number}: no answer to its SYN")),
        }
    };
    shared.tally.borrow_mut().report.open += 1;
    let end = keep_talking(&shared, &mut talk, number).await;
    let mut tally = shared.tally.borrow_mut();
    tally.report.open -= 1;
    tally.lanes[number] = LongConnection::default();
    match end {
        Ok(()) => tally.report.kept += 1,
        Err(trouble) => tally.broken(&format!("connection {number} from {}", talk.local), talk.server, &trouble),
    }
}

/// Exchanges messages until it is told to finish, then closes in good order.
async fn keep_talking(shared: &Shared, talk: &mut Talk, number: usize) -> Result<(), Loss> {
    let interval = shared.settings.interval;
    let mut pace = shared.pace.subscribe();
    // Spread over the interval, so that the load is even.
    let share = f64::from(u32::try_from(number % 1024).unwrap_or(0)) / 1024.0;
    let mut next = Instant::now() + interval.mul_f64(share);
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            _ = pace.wait_for(|pace| *pace == Pace::Finishing) => {}
        }
        // Its sender is in `shared`, so it cannot be gone.
        let last = pace.wait_for(|pace| *pace != Pace::Paused).await.is_ok_and(|pace| *pace == Pace::Finishing);
        if last {
            sleep(interval.mul_f64(share)).await;
        }
        next = Instant::now().max(next + interval);
        let sent = clock();
        shared.tally.borrow_mut().lanes[number].waiting_since = sent;
        match timeout(shared.settings.patience, talk.exchange()).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Loss::Timeout),
        }
        shared.tally.borrow_mut().answered(number, sent, talk.server);
        if last {
            return talk.close(shared.settings.patience).await;
        }
    }
}

async fn freshen(shared: Rc<Shared>) {
    if shared.settings.fresh_per_second == 0 {
        return;
    }
    let together = shared.settings.fresh_per_second.div_ceil(TICKS_PER_SECOND);
    let mut every = tokio::time::interval(Duration::from_secs(1) * together / shared.settings.fresh_per_second);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for number in 0.. {
        every.tick().await;
        match *shared.pace.borrow() {
            Pace::Talking => {}
            Pace::Paused => continue,
            Pace::Finishing => return,
        }
        for one in 0..u64::from(together) {
            spawn_local(fresh_one(Rc::clone(&shared), number * u64::from(together) + one));
        }
    }
}

/// Opens, uses and closes one connection.
async fn fresh_one(shared: Rc<Shared>, number: u64) {
    let id = scramble(shared.salt.rotate_left(32) ^ number);
    let life = async {
        let mut talk = open(&shared, id, usize::try_from(number).unwrap_or(0)).await.map_err(Loss::from)?;
        for _ in 0..FRESH_EXCHANGES {
            talk.exchange().await?;
        }
        talk.close(FRESH_PATIENCE).await?;
        Ok(talk.server)
    };
    shared.tally.borrow_mut().fresh_busy += 1;
    let end = timeout(FRESH_PATIENCE, life).await.unwrap_or(Err(Loss::Timeout));
    let mut tally = shared.tally.borrow_mut();
    tally.fresh_busy -= 1;
    match end {
        Ok(server) => {
            tally.report.fresh_ok += 1;
            *tally.report.fresh_servers.entry(name(server)).or_default() += 1;
        }
        Err(loss) => {
            tally.report.fresh_failed += 1;
            tally.fault(&format!("fresh connection {number}: {}", loss.words()));
        }
    }
}

/// An open connection, and the state of its exchange.
struct Talk {
    stream: TcpStream,
    local: SocketAddr,
    id: u64,
    sequence: u64,
    accepted: u64,
    server: [u8; 16],
    scratch: Vec<u8>,
}

async fn open(shared: &Shared, id: u64, turn: usize) -> io::Result<Talk> {
    let socket = if shared.settings.vipa.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let sources = &shared.settings.sources;
    if !sources.is_empty() {
        socket.bind(SocketAddr::new(sources[turn % sources.len()], 0))?;
    }
    let stream = socket.connect(shared.settings.vipa).await?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    Ok(Talk { stream, local, id, sequence: 0, accepted: 0, server: [0; 16], scratch: Vec::new() })
}

impl Talk {
    /// Sends the next message and verifies its answer.
    async fn exchange(&mut self) -> Result<(), Loss> {
        let ask = Frame {
            kind: Kind::Ask,
            connection: self.id,
            sequence: self.sequence,
            accepted: 0,
            server: [0; 16],
            payload: payload(self.id, self.sequence),
        };
        ask.write(&mut self.stream, &mut self.scratch).await?;
        let answer = Frame::read(&mut self.stream).await?;
        if self.sequence == 0 {
            self.accepted = answer.accepted;
            self.server = answer.server;
        }
        let due = Frame { kind: Kind::Answer, accepted: self.accepted, server: self.server, ..ask };
        if answer != due {
            return Err(Loss::Mismatch(format!(
                "message {} of {:x} from {} where message {} of {:x} from {} should come",
                answer.sequence,
                answer.connection,
                name(answer.server),
                due.sequence,
                due.connection,
                name(due.server)
            )));
        }
        self.sequence += 1;
        Ok(())
    }

    /// Closes the sending half and checks that the other end sends nothing more.
    async fn close(&mut self, patience: Duration) -> Result<(), Loss> {
        self.stream.shutdown().await?;
        let mut rest = [0; 1];
        match timeout(patience, self.stream.read(&mut rest)).await {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(_)) => Err(Loss::Mismatch("bytes after the last answer".into())),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Loss::Timeout),
        }
    }
}

/// How a connection was lost.
pub(super) enum Loss {
    Reset(io::Error),
    Closed,
    Timeout,
    Mismatch(String),
}

impl Loss {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Reset(error) => error.to_string(),
            Self::Closed => "closed by the other end".into(),
            Self::Timeout => "no answer".into(),
            Self::Mismatch(what) => what.clone(),
        }
    }
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::Timeout } else { Self::Reset(error) }
    }
}

impl From<Trouble> for Loss {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Closed => Self::Closed,
            Trouble::Socket(error) => error.into(),
            Trouble::Wrong(what) => Self::Mismatch(what),
        }
    }
}

impl ClientReport {
    fn set_mark(&mut self, moment: u64) {
        self.mark = moment;
        self.longest_ns = 0;
        self.report.first_after_mark_us = None;
    }

    fn answered(&mut self, number: usize, sent: u64, server: [u8; 16]) {
        let now = clock();
        self.lanes[number] = LongConnection { waiting_since: 0, last_answer: now, server: Some(server) };
        self.report.messages += 1;
        let took = now - sent;
        self.longest_ns = self.longest_ns.max(took);
        if took > STALL.as_nanos() as u64 {
            self.report.stalls += 1;
            self.fault(&format!("connection {number}: no answer for {} ms", took / 1_000_000));
        }
        if sent > self.mark + SETTLE.as_nanos() as u64 && self.report.first_after_mark_us.is_none() {
            self.report.first_after_mark_us = Some((now - self.mark) / 1000);
        }
    }

    fn unopened(&mut self, why: &str) {
        self.report.unopened += 1;
        self.fault(why);
    }

    fn broken(&mut self, which: &str, server: [u8; 16], loss: &Loss) {
        *self.report.lost.entry(name(server)).or_default() += 1;
        self.report.broken.count(loss);
        self.fault(&format!("{which}: {}", loss.words()));
    }

    fn fault(&mut self, what: &str) {
        eprintln!("{what}");
        if self.report.faults.len() < FAULTS {
            self.report.faults.push(what.into());
        }
    }

    /// The report as a line.
    fn tell(&mut self, finished: bool, voice: Voice) -> String {
        let now = clock();
        let mut longest = self.longest_ns;
        let mut servers: BTreeMap<String, u64> = BTreeMap::new();
        let mut silent = 0;
        let mut busy = self.fresh_busy;
        for lane in &self.lanes {
            if let Some(server) = lane.server {
                *servers.entry(name(server)).or_default() += 1;
                silent += u64::from(lane.last_answer < self.mark);
            }
            if lane.waiting_since != 0 {
                busy += 1;
                longest = longest.max(now - lane.waiting_since.max(self.mark).min(now));
            }
        }
        self.report.longest_ms = longest / 1_000_000;
        self.report.silent_since_mark = silent;
        self.report.busy = busy;
        self.report.servers = servers;
        self.report.finished = finished;
        match voice {
            Voice::Json => serde_json::to_string(&self.report).expect("a report is plain data"),
            Voice::Words => {
                // The longest wait is of the time since the last line.
                self.longest_ns = 0;
                self.mark = now;
                self.report.to_string()
            }
        }
    }
}

pub(super) fn name(padded: [u8; 16]) -> String {
    String::from_utf8_lossy(&padded).trim_end_matches('\0').into()
}

#[cfg(test)]
mod tests;
