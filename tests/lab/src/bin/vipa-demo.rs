//! The demo: a router dies under live connections, comes back, and no connection breaks.
//!
//! `CONNECTIONS` and `PORTS` are environment variables. The last line of standard output is made for scripts. The exit
//! status is not zero when any connection broke.

use std::{
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, Ports, VIPA},
    load::{Client, ClientPlan, Report},
    packet_ledger::{Account, PacketLedger},
};
use vipa_protocol::{Trigger, admin::TakeoverRecord};

/// Time after which delayed acknowledgements and closing handshakes are through.
const QUIET: Duration = Duration::from_millis(400);
/// Traffic before the first event.
const WARM_UP: Duration = Duration::from_secs(2);
/// Interval at which a wait prints its progress.
const PROGRESS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match settings().and_then(|(connections, ports)| Demo::run(connections, ports)) {
        Ok(verdict) => {
            println!("{}", verdict.line());
            if verdict.kept == verdict.asked && verdict.fresh_failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("demo: failed: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn settings() -> Result<(usize, Ports)> {
    let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let text = variable("CONNECTIONS", "2000");
    let connections = text.parse().ok().filter(|count| (1..=200_000).contains(count));
    let connections = connections.with_context(|| format!("CONNECTIONS is {text:?}, but must be 1 to 200000"))?;
    Ok((connections, variable("PORTS", "af_packet").parse()?))
}

/// Contents of the last line.
struct Verdict {
    asked: u64,
    kept: u64,
    fresh_failed: u64,
    takeover_ms: u64,
    takeback_lost: u64,
}

impl Verdict {
    fn line(&self) -> String {
        let Self { asked, kept, fresh_failed: _, takeover_ms, takeback_lost } = self;
        format!("demo: kept {kept} of {asked} connections; takeover {takeover_ms} ms; takeback {takeback_lost} lost")
    }
}

struct Demo {
    cluster: Cluster,
    connections: usize,
    started: Instant,
}

impl Demo {
    fn run(connections: usize, ports: Ports) -> Result<Verdict> {
        let started = Instant::now();
        let driver = match ports {
            Ports::AfPacket => "net_af_packet",
            Ports::Tap => "net_tap",
        };
        println!(
            "Two routers, three targets and a client in network namespaces; the VIPA is {VIPA}, ports are {driver}."
        );
        let plan = Plan { ports, connections, ..Plan::new("demo") };
        let mut demo = Self { cluster: Cluster::start(plan)?, connections, started };
        let end = demo.story();
        if end.is_err() {
            demo.cluster.show_logs();
        }
        end
    }

    fn story(&mut self) -> Result<Verdict> {
        self.say("starting vipad on r1 and r2, vipa-agent and a server on t1, t2 and t3");
        self.cluster.wait_ready()?;
        self.say("r1 owns the VIPA, r2 is its warm backup, the three targets listen on port 80");
        let mut client = self.open()?;
        sleep(WARM_UP);
        self.show(&["status"])?;
        self.show(&["distribution"])?;
        self.show(&["connections", "--limit", "5"])?;
        let takeover_ms = self.takeover(&mut client)?;
        let takeback = self.takeback(&mut client)?;
        self.say("the client closes every connection in good order and checks each to its last byte");
        let end = client.finish(PATIENCE + Duration::from_millis(self.connections as u64))?;
        for fault in &end.faults {
            println!("  fault: {fault}");
        }
        Ok(Verdict {
            asked: end.asked,
            kept: end.kept,
            fresh_failed: end.fresh_failed,
            takeover_ms,
            takeback_lost: takeback.lost(),
        })
    }

    /// The client with all its connections open.
    fn open(&self) -> Result<Client> {
        self.say(&format!("the client opens {} connections", self.connections));
        let mut client = self.cluster.start_client(&ClientPlan::new(Cluster::service(), self.connections))?;
        let until = Instant::now() + PATIENCE + Duration::from_millis(self.connections as u64);
        let open = loop {
            match client.wait_open(PROGRESS) {
                Ok(report) => break report,
                Err(error) => {
                    let report = client.report();
                    let lost = report.unopened + report.broken.total();
                    ensure!(lost == 0 && Instant::now() < until, error);
                    self.say(&format!("… {} of {}", report.servers.values().sum::<u64>(), report.asked));
                }
            }
        };
        self.say(&format!(
            "{} are open ({}); numbered, checksummed messages go back and forth on each",
            open.open,
            spread(&open)
        ));
        Ok(client)
    }

    /// Kills the owner; returns the milliseconds from the kill to the first packet that the backup forwarded.
    fn takeover(&mut self, client: &mut Client) -> Result<u64> {
        let before = client.report();
        self.say("SIGKILL to vipad on r1, the owner, under this traffic");
        let killed = self.cluster.router("r1").kill()?;
        client.mark_at(killed)?;
        let takeover = self.cluster.wait_takeover("r2", Trigger::Failure)?;
        self.say(&format!("r2 owns the VIPA, in epoch {}", takeover.report.epoch));
        let after = self.everyone_answered(client, "the takeover")?;
        let first = after.first_after_mark_us.context("no message was answered after the kill")?;
        Self::report("r2", &takeover, &before, &after, ("kill → first packet forwarded", milliseconds(first)));
        Ok(first.div_ceil(1000))
    }

    /// Starts the old owner again, which takes the VIPA back; returns the packets sent and received meanwhile.
    fn takeback(&mut self, client: &mut Client) -> Result<Account> {
        let targets = self.cluster.target_hosts();
        let ledger = PacketLedger::open(self.cluster.lab(), self.cluster.client_host(), targets, Cluster::service())?;
        client.pause()?;
        sleep(QUIET);
        let opened = ledger.read()?;
        client.resume()?;
        let before = client.report();
        self.say("vipad on r1 is started again, under traffic; it learns that r2 owns the VIPA, and takes it back");
        client.mark()?;
        self.cluster.router("r1").start()?;
        let takeback = self.cluster.wait_takeover("r1", Trigger::Takeback)?;
        self.say(&format!("r1 owns the VIPA, in epoch {}", takeback.report.epoch));
        let longest = client.report().longest_ms;
        client.mark()?;
        let mut after = self.everyone_answered(client, "the takeback")?;
        after.longest_ms = after.longest_ms.max(longest);
        client.pause()?;
        sleep(QUIET);
        let account = ledger.read()?.since(opened);
        client.resume()?;
        let Account { sent, arrived } = account;
        let lost = format!("{} ({sent} sent, {arrived} arrived)", account.lost());
        Self::report("r1", &takeback, &before, &after, ("packets lost", lost));
        if account.lost() > 0 {
            println!("  where they may have gone: {}", self.cluster.counters());
        }
        Ok(account)
    }

    /// Waits until every connection has had an answer since the mark, or is lost.
    fn everyone_answered(&self, client: &mut Client, what: &str) -> Result<Report> {
        let until = Instant::now() + PATIENCE + Duration::from_millis(self.connections as u64);
        loop {
            match client.wait_for(&format!("an answer on every connection after {what}"), PROGRESS, |report| {
                report.silent_since_mark == 0
            }) {
                Ok(report) => return Ok(report),
                Err(error) => {
                    ensure!(Instant::now() < until, error);
                    let report = client.report();
                    self.say(&format!(
                        "… {} of {} connections have had an answer",
                        report.open - report.silent_since_mark.min(report.open),
                        report.asked
                    ));
                }
            }
        }
    }

    /// The takeover report: by the new owner, and by the client.
    fn report(router: &str, record: &TakeoverRecord, before: &Report, after: &Report, own_line: (&str, String)) {
        let report = &record.report;
        let name = if report.trigger == Trigger::Takeback { "takeback" } else { "takeover" };
        println!("\n  {name} report: {router} owns {} in epoch {}", report.vipa, report.epoch);
        let line = |what: &str, value: String| println!("    {what:<32} {value}");
        line("detect", milliseconds(report.detect_us));
        line("collect the votes", milliseconds(report.collect_us));
        line("announce", milliseconds(record.announce_us));
        line("rebuild", milliseconds(report.rebuild_us));
        line(own_line.0, own_line.1);
        line("targets that answered", format!("{} of {}", report.targets_answered, report.targets_expected));
        let (known, rebuilt) = (record.connections_known_before, record.connections_rebuilt);
        line("connections rebuilt", format!("{rebuilt} by the targets' reports, {known} known before"));
        let (held, released, expired) = (record.held, record.released, record.expired);
        line("packets held", format!("{held}, of which released {released}, given up {expired}"));
        let lost = after.broken.total() - before.broken.total();
        line("connections kept, lost", format!("{}, {lost}", after.open));
        let (fresh, failed) = (after.fresh_ok - before.fresh_ok, after.fresh_failed - before.fresh_failed);
        line("new connections since", format!("{fresh} succeeded, {failed} failed"));
        line("longest wait for an answer", format!("{} ms", after.longest_ms));
        println!();
    }

    fn say(&self, what: &str) {
        println!("[{:5.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// Prints the status for a person.
    fn show(&mut self, arguments: &[&str]) -> Result<()> {
        println!("\n  $ vipactl {}", arguments.join(" "));
        for line in self.cluster.router("r1").vipactl(arguments)?.lines() {
            println!("  {line}");
        }
        println!();
        Ok(())
    }
}

/// Open connections by target, in words.
fn spread(report: &Report) -> String {
    let parts: Vec<_> = report.servers.iter().map(|(server, count)| format!("{server} {count}")).collect();
    parts.join(", ")
}

fn milliseconds(us: u64) -> String {
    if us < 100 { format!("{us} µs") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}
