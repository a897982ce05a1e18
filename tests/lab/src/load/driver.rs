//! Runs client and server processes in hosts, gives them orders and adds up their reports.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr},
    process::{ChildStdin, ChildStdout},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::{Report, RequestReport, RequestSettings, ServerReport, clock};
use crate::{
    netns::Host,
    process::{Process, wait},
    programs,
};

/// Connections of one process: well below the files that a process may open (20,000 on the lab's machine).
const PER_PROCESS: usize = 8_000;

/// Settings of the client.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub vipa: SocketAddr,
    pub sources: Vec<IpAddr>,
    /// Long-lived connections.
    pub connections: usize,
    /// Messages a second of all connections together.
    pub messages_per_second: u32,
    /// Fresh connections a second.
    pub fresh_per_second: u32,
    /// Time without an answer after which a connection is broken.
    pub patience: Duration,
}

impl ClientPlan {
    #[must_use]
    pub fn new(vipa: SocketAddr, connections: usize) -> Self {
        Self {
            vipa,
            sources: Vec::new(),
            connections,
            messages_per_second: 4_000,
            fresh_per_second: 5,
            patience: Duration::from_secs(30),
        }
    }
}

/// The running client. Its processes end when it is dropped.
pub struct Client {
    processes: Vec<Share>,
    /// Orders given so far, to all processes together.
    orders: u64,
}

struct Share {
    process: Process,
    orders: ChildStdin,
    latest: Arc<Mutex<Report>>,
    /// Ends when everything that the process has printed is in `latest`.
    reader: JoinHandle<()>,
}

impl Client {
    pub fn start(host: &Host, name: &str, plan: &ClientPlan) -> Result<Self> {
        let count = plan.connections.div_ceil(PER_PROCESS).max(1);
        let interval = plan.connections.max(1) as u64 * 1000 / u64::from(plan.messages_per_second.max(1));
        let interval = interval.max(20);
        let mut processes = Vec::new();
        for share in 0..count {
            let connections = plan.connections / count + usize::from(share < plan.connections % count);
            let fresh = if share == 0 { plan.fresh_per_second } else { 0 };
            let mut arguments: Vec<String> = vec!["run".into(), "--vipa".into(), plan.vipa.to_string()];
            arguments.extend(["--connections".into(), connections.to_string()]);
            arguments.extend(["--interval-ms".into(), interval.to_string()]);
            arguments.extend(["--fresh-per-second".into(), fresh.to_string()]);
            arguments.extend(["--patience-s".into(), plan.patience.as_secs().to_string()]);
            for source in &plan.sources {
                arguments.extend(["--source".into(), source.to_string()]);
            }
            let mut process = host.converse(&format!("{name}-{share}"), programs::path("vipa-load")?, arguments)?;
            let orders = process.input().context("the client has no input")?;
            let output = process.output().context("the client has no output")?;
            let (latest, reader) = follow(output, Report { asked: connections as u64, ..Report::default() });
            processes.push(Share { process, orders, latest, reader });
        }
        Ok(Self { processes, orders: 0 })
    }

    /// The latest reports, added up; at most a moment old.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut sum = Report { finished: true, ..Report::default() };
        for share in &self.processes {
            sum.add(&share.latest.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }

    /// Restarts the measurements: the longest exchange, the first answer. Returns the moment, see [`clock`].
    pub fn mark(&mut self) -> Result<u64> {
        let moment = clock();
        self.mark_at(moment)?;
        Ok(moment)
    }

    /// Restarts the measurements from that moment on.
    pub fn mark_at(&mut self, moment: u64) -> Result<()> {
        self.order(&format!("mark {moment}\n"))
    }

    /// Opens `count` fresh connections at once.
    pub fn fresh(&mut self, count: u32) -> Result<()> {
        let share = self.processes.first_mut().context("no client process")?;
        share.orders.write_all(format!("fresh {count}\n").as_bytes()).context("the client is gone")?;
        self.orders += 1;
        Ok(())
    }

    /// Opens `count` fresh connections, waits for the end of all of them, and returns how many succeeded. Other fresh
    /// connections must not be running.
    pub fn fresh_and_wait(&mut self, count: u32) -> Result<Fresh> {
        let before = self.report();
        self.fresh(count)?;
        let done = |report: &Report| {
            report.fresh_ok + report.fresh_failed >= before.fresh_ok + before.fresh_failed + u64::from(count)
        };
        let after = self.wait_for("the fresh connections", Duration::from_secs(20), done)?;
        let mut servers = after.fresh_servers;
        for (server, count) in before.fresh_servers {
            if let Some(now) = servers.get_mut(&server) {
                *now -= count;
            }
        }
        servers.retain(|_, count| *count > 0);
        Ok(Fresh { ok: after.fresh_ok - before.fresh_ok, failed: after.fresh_failed - before.fresh_failed, servers })
    }

    /// Waits until a report that was made after the last order meets the condition; the error has the last report.
    pub fn wait_for(&mut self, what: &str, patience: Duration, met: impl Fn(&Report) -> bool) -> Result<Report> {
        let mut ended = None;
        let found = wait(what, patience, || {
            let report = self.report();
            if report.orders == self.orders && met(&report) {
                return Some(Some(report));
            }
            ended = self.processes.iter_mut().find_map(|share| {
                let status = share.process.ended()?;
                (share.reader.is_finished() && !share.latest.lock().unwrap_or_else(PoisonError::into_inner).finished)
                    .then(|| format!("{} ended: {status}\n{}", share.process.name(), share.process.tail(10)))
            });
            ended.as_ref().map(|_| None)
        });
        match found {
            Ok(Some(report)) => Ok(report),
            Ok(None) => bail!("while waiting for {what}: {}", ended.unwrap_or_default()),
            Err(error) => Err(error.context(format!("the client's last report: {:#?}", self.report()))),
        }
    }

    /// Waits until every connection is open and has had its first answer.
    pub fn wait_open(&mut self, patience: Duration) -> Result<Report> {
        let open = |report: &Report| report.servers.values().sum::<u64>() == report.asked;
        let lost = |report: &Report| report.unopened + report.broken.total() > 0;
        let report = self.wait_for("all connections to open", patience, |report| open(report) || lost(report))?;
        ensure!(open(&report), "not all connections opened: {report:#?}");
        Ok(report)
    }

    /// Begins no exchange from now on, and waits until none is under way: the wire is quiet.
    pub fn pause(&mut self) -> Result<Report> {
        self.order("pause\n")?;
        self.wait_for("a pause", Duration::from_secs(20), |report| report.busy == 0)
    }

    pub fn resume(&mut self) -> Result<()> {
        self.order("resume\n")
    }

    /// One last exchange on every connection, then closes all and waits for the final report.
    pub fn finish(mut self, patience: Duration) -> Result<Report> {
        self.order("finish\n")?;
        self.wait_for("the client to finish", patience, |report| report.finished)
    }

    fn order(&mut self, order: &str) -> Result<()> {
        for share in &mut self.processes {
            share.orders.write_all(order.as_bytes()).context("the client is gone")?;
            self.orders += 1;
        }
        Ok(())
    }
}

/// A running client of one request a connection. Its process ends when it is dropped.
pub struct Requests {
    process: Process,
    orders: ChildStdin,
    latest: Arc<Mutex<RequestReport>>,
    reader: JoinHandle<()>,
}

impl Requests {
    pub fn start(host: &Host, name: &str, settings: &RequestSettings) -> Result<Self> {
        let RequestSettings {
            vipa,
            endings,
            clients,
            count,
            first_port,
            ports,
            silence_ms,
            answer_bytes,
            late_bytes,
            interval,
            patience,
        } = settings;
        let mut arguments: Vec<String> = vec!["request".into()];
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("vipa", vipa.to_string());
        for ending in endings {
            let name = ending.to_possible_value().context("every ending has a name")?;
            option("ending", name.get_name().to_owned());
        }
        option("clients", clients.to_string());
        if let Some(count) = count {
            option("count", count.to_string());
        }
        option("first-port", first_port.to_string());
        option("ports", ports.to_string());
        option("silence-ms", silence_ms.0.to_string());
        option("longest-silence-ms", silence_ms.1.to_string());
        option("answer-bytes", answer_bytes.to_string());
        option("late-bytes", late_bytes.to_string());
        option("interval-ms", interval.as_millis().to_string());
        option("patience-s", patience.as_secs().to_string());
        let mut process = host.converse(name, programs::path("vipa-load")?, arguments)?;
        let orders = process.input().context("the client has no input")?;
        let output = process.output().context("the client has no output")?;
        let (latest, reader) = follow(output, RequestReport::default());
        Ok(Self { process, orders, latest, reader })
    }

    /// The latest report; at most a moment old.
    #[must_use]
    pub fn report(&self) -> RequestReport {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a report meets the condition; the error has the last one.
    pub fn wait_for(
        &mut self,
        what: &str,
        patience: Duration,
        met: impl Fn(&RequestReport) -> bool,
    ) -> Result<RequestReport> {
        let found = wait(what, patience, || {
            let report = self.report();
            if met(&report) {
                return Some(Some(report));
            }
            // Its last report is read before it counts as ended.
            (self.process.ended().is_some() && self.reader.is_finished() && !met(&self.report())).then_some(None)
        });
        match found {
            Ok(Some(report)) => Ok(report),
            Ok(None) => bail!("while waiting for {what}: {} ended: {:#?}", self.process.name(), self.report()),
            Err(error) => Err(error.context(format!("the client's last report: {:#?}", self.report()))),
        }
    }

    /// Waits until this many further connections have ended well, or one has not.
    pub fn wait_further(&mut self, count: u64, patience: Duration) -> Result<RequestReport> {
        let before = self.report();
        self.wait_for(&format!("{count} further connections"), patience, |report| {
            report.kept >= before.kept + count || report.broken.total() > before.broken.total()
        })
    }

    /// Lets every connection end, begins no other, and waits for the final report.
    pub fn finish(mut self, patience: Duration) -> Result<RequestReport> {
        // A client with a limited number of connections may have ended already.
        let _ = self.orders.write_all(b"finish\n");
        self.wait_for("the client to finish", patience, |report| report.finished)
    }
}

/// A server process in a host, and its report.
pub struct Server {
    process: Process,
    latest: Arc<Mutex<ServerReport>>,
}

impl Server {
    /// Starts a server and waits until it listens. Several may listen at the same address.
    pub fn start(host: &Host, listen: SocketAddr) -> Result<Self> {
        let name = host.name().to_string();
        let arguments = ["serve", "--name", &name, "--listen", &listen.to_string()].map(String::from);
        let mut process = host.converse(&format!("{name}-server"), programs::path("vipa-load")?, arguments)?;
        let output = process.output().context("the server has no output")?;
        let (latest, _) = follow(output, ServerReport::default());
        let mut server = Self { process, latest };
        let up = wait("the server to listen", Duration::from_secs(10), || {
            (server.process.ended().is_some() || !server.report().server.is_empty()).then(|| server.process.ended())
        });
        match up? {
            None => Ok(server),
            Some(status) => bail!("the server of {name} ended: {status}\n{}", server.process.tail(10)),
        }
    }

    #[must_use]
    pub fn report(&self) -> ServerReport {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Sends SIGKILL: its kernel resets the connections it held.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}

/// Keeps the latest report that a process has printed.
fn follow<R: DeserializeOwned + Send + 'static>(output: ChildStdout, first: R) -> (Arc<Mutex<R>>, JoinHandle<()>) {
    let latest = Arc::new(Mutex::new(first));
    let reported = Arc::clone(&latest);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Ok(report) = serde_json::from_str(&line) {
                *reported.lock().unwrap_or_else(PoisonError::into_inner) = report;
            }
        }
    });
    (latest, reader)
}

/// The end of a number of fresh connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    pub ok: u64,
    pub failed: u64,
    pub servers: std::collections::BTreeMap<String, u64>,
}
