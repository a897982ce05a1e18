//! Clients of one request a connection, one connection after the other, from few ports.
//!
//! Each of several clients has some ports of its own and uses them in turn, each again as soon as its connection has
//! ended. The line `finish` on standard input lets every connection end and begins no other.

use std::{cell::RefCell, collections::BTreeMap, io, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Result, ensure};
use tokio::{
    sync::watch,
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    LATE, REPORT,
    client::{Loss, name},
    clock,
    frame::scramble,
    report::{FAULTS, RequestReport},
    request::{Ending, Request, ask, connect},
};

/// Connections that ended before a server had answered and whose times are reported.
const MOST_SPANS: usize = 4096;

#[derive(Clone, Debug)]
pub struct RequestSettings {
    pub vipa: SocketAddr,
    /// Client number `n` uses ending number `n`, from the first one again after the last.
    pub endings: Vec<Ending>,
    pub clients: u16,
    /// Connections of all clients together; `None`: until `finish`.
    pub count: Option<u64>,
    /// The first client's first port, and the ports of each; without any the kernel chooses.
    pub first_port: u16,
    pub ports: u16,
    /// Bounds from which the silence of connections that have one is drawn.
    pub silence_ms: (u64, u64),
    pub answer_bytes: usize,
    pub late_bytes: usize,
    /// Between two connections of one client.
    pub interval: Duration,
    /// A connection that has not ended this long after its silence is broken.
    pub patience: Duration,
}

impl RequestSettings {
    /// One client of small answers, from ports that the kernel chooses, until it is told to finish.
    #[must_use]
    pub fn new(vipa: SocketAddr, ending: Ending) -> Self {
        Self {
            vipa,
            endings: vec![ending],
            clients: 1,
            count: None,
            first_port: 0,
            ports: 0,
            silence_ms: (0, 0),
            answer_bytes: 300,
            late_bytes: 300,
            interval: Duration::ZERO,
            patience: Duration::from_secs(20),
        }
    }
}

/// Runs to the last connection, or until it is told to finish; one report a line on standard output.
pub fn request(settings: RequestSettings) -> Result<()> {
    ensure!(!settings.endings.is_empty() && settings.clients > 0, "nothing is asked for");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, request_on(settings))
}

struct Shared {
    settings: RequestSettings,
    report: RefCell<RequestReport>,
    /// By port, when the connection under way is late; see [`clock`]. Ports that the kernel chooses are not in it.
    due: RefCell<BTreeMap<u16, u64>>,
    salt: u64,
    finishing: watch::Sender<bool>,
}

async fn request_on(settings: RequestSettings) -> Result<()> {
    let shared = Rc::new(Shared {
        report: RefCell::default(),
        due: RefCell::default(),
        salt: scramble(clock() ^ u64::from(std::process::id())),
        finishing: watch::channel(false).0,
        settings,
    });
    let (sender, mut finish) = tokio::sync::mpsc::unbounded_channel();
    // A thread of its own reads: it may stay blocked when everything else has ended.
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if line == "finish" && sender.send(()).is_err() {
                break;
            }
        }
    });
    let obeying = Rc::clone(&shared);
    spawn_local(async move {
        if finish.recv().await.is_some() {
            obeying.finishing.send_replace(true);
        }
    });
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..shared.settings.clients {
        clients.spawn_local(repeat(Rc::clone(&shared), number));
    }
    let mut every = tokio::time::interval(REPORT);
    loop {
        tokio::select! {
            _ = every.tick() => shared.tell(),
            ended = clients.join_next() => match ended {
                None => break,
                Some(end) => end?,
            }
        }
    }
    shared.report.borrow_mut().finished = true;
    shared.tell();
    Ok(())
}

/// One client: connection after connection.
async fn repeat(shared: Rc<Shared>, client: u16) {
    let RequestSettings { ref endings, first_port, ports, count, interval, .. } = shared.settings;
    let ending = endings[usize::from(client) % endings.len()];
    for turn in 0_u64.. {
        if *shared.finishing.borrow() || count.is_some_and(|count| shared.report.borrow().asked >= count) {
            return;
        }
        let port = if ports == 0 { 0 } else { first_port + client * ports + (turn % u64::from(ports)) as u16 };
        shared.report.borrow_mut().asked += 1;
        one(&shared, ending, port, scramble(shared.salt ^ scramble(u64::from(client) << 40 | turn))).await;
        if !interval.is_zero() {
            let mut finishing = shared.finishing.subscribe();
            tokio::select! {
                () = sleep(interval) => {}
                _ = finishing.wait_for(|finishing| *finishing) => {}
            }
        }
    }
}

/// One connection from its SYN to its end.
async fn one(shared: &Shared, ending: Ending, port: u16, connection: u64) {
    let RequestSettings { vipa, silence_ms: (least, most), answer_bytes, late_bytes, patience, .. } = shared.settings;
    let silence_ms = match ending {
        Ending::ServerPauses | Ending::ClientCloses | Ending::ClientHalfCloses | Ending::ServerHalfCloses => {
            least + scramble(connection) % (most - least + 1)
        }
        Ending::ServerCloses | Ending::ClientResets => 0,
    };
    let request = Request { ending, answer_bytes, late_bytes, silence_ms };
    let began = clock();
    if port != 0 {
        let late = LATE + Duration::from_millis(silence_ms);
        shared.due.borrow_mut().insert(port, began + late.as_nanos() as u64);
    }
    let server = std::cell::Cell::new(None);
    let life = async {
        let stream = connect(vipa, port).await?;
        let named = |named| {
            server.set(Some(name(named)));
            shared.report.borrow_mut().answered += 1;
        };
        Ok::<(), Loss>(ask(stream, &request, connection, named).await?)
    };
    let end = timeout(patience + Duration::from_millis(silence_ms), life).await.unwrap_or(Err(Loss::Timeout));
    shared.due.borrow_mut().remove(&port);
    let mut report = shared.report.borrow_mut();
    let took_ms = (clock() - began) / 1_000_000;
    report.longest_ms = report.longest_ms.max(took_ms.saturating_sub(silence_ms));
    match (end, server.into_inner()) {
        (Ok(()), server) => {
            report.kept += 1;
            *report.servers.entry(server.unwrap_or_default()).or_default() += 1;
        }
        (Err(loss), server) => {
            let at = server.as_deref().unwrap_or("nobody");
            let what = format!("{ending:?} from port {port} at {at} after {took_ms} ms: {}", loss.words());
            eprintln!("{what}");
            report.broken.count(&loss);
            match server {
                Some(server) => *report.lost.entry(server).or_default() += 1,
                None if report.unanswered.len() < MOST_SPANS => report.unanswered.push((began, clock())),
                None => report.unanswered_more += 1,
            }
            if report.faults.len() < FAULTS {
                report.faults.push(what);
            }
        }
    }
}

impl Shared {
    fn tell(&self) {
        let now = clock();
        let is_late = |(port, due): (&u16, &u64)| (*due < now).then_some(*port);
        self.report.borrow_mut().late = self.due.borrow().iter().filter_map(is_late).collect();
        println!("{}", serde_json::to_string(&*self.report.borrow()).expect("a report is plain data"));
    }
}
