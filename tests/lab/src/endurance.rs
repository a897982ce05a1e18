//! Long runs: connections opened and closed all the time, owners that change, configurations that change; and the
//! resources that the processes keep.
//!
//! There are two stories with one measure. `soak` opens and closes connections at the given rate, and in turn changes
//! the owner, kills it and restarts agents. `reloads` changes VIPAs, services and targets by reload again and again.
//! During both, the resident memory, threads and open files of every process are sampled: at the end they must be what
//! they were after the first part.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write,
    process::Command,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::{
    cluster::{Cluster, PATIENCE, Plan, VIPA},
    load::{Client, ClientPlan, Report},
};

const ROUTERS: u8 = 3;
const TARGETS: u8 = 3;
/// Connections that live all the time, each byte of them checked.
const LONG_LIVED: usize = 200;
/// Between two samples.
const SAMPLE: Duration = Duration::from_secs(2);
/// Interval at which the state is printed.
const PROGRESS: Duration = Duration::from_secs(30);
/// Reloads after which a process has all that it needs.
const SETTLED: u32 = 100;
/// Permitted growth of a process: allocators keep pages, and samples of a busy process differ.
const GROWTH_PERCENT: u64 = 15;
const GROWTH_KIB: u64 = 12 * 1024;
/// Threads and files that come and go with the activity at the moment of a sample.
const PASSING: u64 = 8;

/// Which story, and how long.
#[derive(Clone, Copy, Debug)]
pub enum Story {
    /// Connections, owners and agents come and go for this time.
    Soak { time: Duration, fresh_per_second: u32 },
    /// This many reloads under traffic.
    Reloads { count: u32, fresh_per_second: u32 },
}

/// Resources of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Footprint {
    pub resident_kib: u64,
    pub threads: u64,
    pub files: u64,
}

/// A process over the run: since the part in which it takes what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Growth {
    pub settled: Footprint,
    pub end: Footprint,
}

/// Result of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Endured {
    pub story: String,
    pub seconds: u64,
    pub connections: u64,
    pub failed: u64,
    pub broken: u64,
    pub kept: u64,
    pub asked: u64,
    pub owners: u64,
    pub reloads: u64,
    /// Reloads a second in the first tenth of the run and in the last one.
    pub paces: [u64; 2],
    /// By process.
    pub growth: BTreeMap<String, Growth>,
}

impl fmt::Display for Endured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { story, seconds, connections, failed, broken, kept, asked, owners, reloads, paces, growth } = self;
        for (name, Growth { settled, end }) in growth {
            writeln!(
                f,
                "{name}: {} kB then {} kB resident, {} then {} threads, {} then {} files",
                settled.resident_kib, end.resident_kib, settled.threads, end.threads, settled.files, end.files
            )?;
        }
        write!(
            f,
            "{story}: {seconds} s, {connections} connections opened and closed, {failed} failed, {broken} broken; kept \
             {kept} of {asked}; {owners} changes of owner, {reloads} reloads"
        )?;
        match paces {
            [0, 0] => Ok(()),
            [first, last] => write!(f, ", {first} a second at first and {last} in the end"),
        }
    }
}

impl Endured {
    /// An error when a connection broke or a process has grown.
    pub fn check(&self) -> Result<()> {
        ensure!(self.broken == 0 && self.kept == self.asked, "connections broke: {self}");
        ensure!(self.failed == 0, "connections could not be opened: {self}");
        ensure!(!self.growth.is_empty(), "no process has lived through the whole run: {self}");
        for (name, Growth { settled, end }) in &self.growth {
            let most = settled.resident_kib + settled.resident_kib * GROWTH_PERCENT / 100 + GROWTH_KIB;
            ensure!(end.resident_kib <= most, "{name} has grown from {settled:?} to {end:?}");
            ensure!(end.threads <= settled.threads + PASSING, "{name} has more threads: {settled:?}, then {end:?}");
            ensure!(end.files <= settled.files + PASSING, "{name} has more files: {settled:?}, then {end:?}");
        }
        Ok(())
    }
}

impl Footprint {
    /// Of a process of this machine.
    pub fn of(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let number = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
            Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
        };
        let files = fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
        Ok(Self { resident_kib: number("VmRSS:")?, threads: number("Threads:")?, files })
    }
}

/// Appends the measurements to the file that `ROWS` names, if it is set: a line of JSON with the time and the commit.
///
/// # Errors
/// When the file cannot be written.
pub fn append_row(kind: &str, measured: &impl Serialize) -> Result<()> {
    let Some(file) = std::env::var_os("ROWS").filter(|file| !file.is_empty()) else { return Ok(()) };
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output()?;
    let row = serde_json::json!({
        "kind": kind,
        "commit": String::from_utf8_lossy(&output.stdout).trim(),
        "unix_s": SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        "measured": measured,
    });
    let mut rows = fs::OpenOptions::new().create(true).append(true).open(&file)?;
    writeln!(rows, "{row}").with_context(|| format!("cannot write {}", file.display()))
}

/// Runs the story; an error when the cluster does not recover.
pub fn run(story: Story) -> Result<Endured> {
    let plan = Plan {
        routers: ROUTERS,
        targets: TARGETS,
        // Its table has room for the connections that are half-open, open and just ended at this rate.
        connections: 100_000,
        ..Plan::new("endurance")
    };
    let mut runner = Runner::start(plan, story)?;
    let end = runner.tell();
    if end.as_ref().map_or(true, |endured| endured.check().is_err()) {
        runner.cluster.show_logs();
    }
    end
}

struct Runner {
    cluster: Cluster,
    story: Story,
    started: Instant,
    told: Instant,
    sampled: Instant,
    /// The highest values of each process in the part in which it settles, and in the last part; by process number,
    /// because a restarted process begins again.
    settled: BTreeMap<(String, u32), Footprint>,
    end: BTreeMap<(String, u32), Footprint>,
    owners: u64,
    reloads: u32,
    paces: [u64; 2],
}

impl Runner {
    fn start(plan: Plan, story: Story) -> Result<Self> {
        let cluster = Cluster::start(plan)?;
        let client = cluster.client_host();
        // Ports are used again after a second, not after a minute.
        client.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
        client.sysctl("net.ipv4.ip_local_port_range", "2000 65000")?;
        let now = Instant::now();
        Ok(Self {
            cluster,
            story,
            started: now,
            told: now,
            sampled: now,
            settled: BTreeMap::new(),
            end: BTreeMap::new(),
            owners: 0,
            reloads: 0,
            paces: [0; 2],
        })
    }

    fn tell(&mut self) -> Result<Endured> {
        self.cluster.wait_ready()?;
        let (Story::Soak { fresh_per_second, .. } | Story::Reloads { fresh_per_second, .. }) = self.story;
        let plan = ClientPlan { fresh_per_second, ..ClientPlan::new(Cluster::service(), LONG_LIVED) };
        let mut client = self.cluster.client_with(&plan)?;
        self.started = Instant::now();
        match self.story {
            Story::Soak { time, .. } => self.soak(&client, time)?,
            Story::Reloads { count, .. } => self.reload_often(&client, count)?,
        }
        client.mark()?;
        client.wait_for("an answer on every connection", PATIENCE, |report| report.silent_since_mark == 0)?;
        let report = client.finish(PATIENCE)?;
        Ok(self.judge(&report))
    }

    /// Changes to the cluster, in turn; after each the highest-ranked router is the owner.
    fn soak(&mut self, client: &Client, time: Duration) -> Result<()> {
        let vipa = VIPA.to_string();
        let mut turn = 0_usize;
        while self.started.elapsed() < time {
            self.watch(client, Duration::from_secs(5), time)?;
            match turn % 4 {
                0 => {
                    self.cluster.router("r2").vipactl(&["vipa", "move", &vipa, "r2"])?;
                    self.watch(client, Duration::from_secs(3), time)?;
                    self.cluster.router("r1").vipactl(&["vipa", "takeback", &vipa])?;
                    self.owners += 2;
                }
                1 => {
                    self.cluster.router("r1").kill()?;
                    self.watch(client, Duration::from_secs(3), time)?;
                    self.cluster.router("r1").start()?;
                    self.cluster.wait_ready()?;
                    self.owners += 2;
                }
                2 => {
                    let target = self.cluster.target("t1");
                    target.stop_agent()?;
                    target.start_agent()?;
                    self.cluster.wait_ready()?;
                }
                _ => {
                    let target = self.cluster.target("t2");
                    target.kill_agent()?;
                    target.start_agent()?;
                    self.cluster.wait_ready()?;
                }
            }
            turn += 1;
        }
        Ok(())
    }

    /// Adds and removes a VIPA, a service and a target, each time with other addresses.
    fn reload_often(&mut self, client: &Client, count: u32) -> Result<()> {
        let file = self.cluster.router("r1").config().to_owned();
        let first = fs::read_to_string(&file)?;
        let tenth = count.div_ceil(10);
        let mut began = Instant::now();
        for number in 0..count {
            let [_, _, high, low] = number.to_be_bytes();
            let further = match number % 3 {
                0 => String::new(),
                // By `nat` to another port each time, so that each is another path.
                _ => format!(
                    "\n[[vipa]]\naddress = \"10.78.{high}.{low}\"\nranks = {{ r1 = 200 }}\n\n[[vipa.service]]\nprotocol = \
                     \"tcp\"\nports = {}\nforwarding = \"nat\"\ntarget_port = {}\ncandidates = [\"10.77.0.31\", \
                     \"10.77.0.{}\"]\n",
                    1000 + number % 10_000,
                    1000 + number % 60_000,
                    150 + number % 100,
                ),
            };
            let next = file.with_extension("next");
            fs::write(&next, format!("{first}{further}"))?;
            fs::rename(&next, &file)?;
            self.cluster.router("r1").vipactl(&["reload"])?;
            self.reloads += 1;
            let pace = (f64::from(tenth) / began.elapsed().as_secs_f64()).round() as u64;
            match self.reloads {
                done if done == tenth => self.paces[0] = pace,
                done if done == count - tenth => began = Instant::now(),
                done if done == count => self.paces[1] = pace,
                _ => {}
            }
            if self.reloads == SETTLED.min(count / 4) || self.reloads == count {
                self.sample()?;
            }
            self.look(client)?;
        }
        fs::write(&file, first)?;
        self.cluster.router("r1").vipactl(&["reload"]).map(drop)
    }

    /// Checks everything for a while, but not beyond the end.
    fn watch(&mut self, client: &Client, while_: Duration, end: Duration) -> Result<()> {
        let until = (self.started.elapsed() + while_).min(end);
        while self.started.elapsed() < until {
            self.look(client)?;
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn look(&mut self, client: &Client) -> Result<()> {
        if let Some(end) = self.cluster.ended() {
            bail!("nobody asked it to: {end}");
        }
        if self.sampled.elapsed() >= SAMPLE {
            self.sampled = Instant::now();
            self.sample()?;
        }
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let Report { open, fresh_ok, fresh_failed, .. } = client.report();
            let resident: u64 = self.footprints()?.iter().map(|(_, footprint)| footprint.resident_kib).sum();
            println!(
                "[{:6.1} s] {open} connections open; {fresh_ok} opened and closed, {fresh_failed} failed; {} reloads, {} changes \
                 of owner; {resident} kB resident",
                self.started.elapsed().as_secs_f64(),
                self.reloads,
                self.owners,
            );
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        let part = match self.story {
            Story::Soak { time, .. } => (self.started.elapsed() * 4).div_duration_f64(time) as u32,
            Story::Reloads { count, .. } if self.reloads <= SETTLED.min(count / 4) => 0,
            Story::Reloads { count, .. } => 1 + self.reloads * 3 / count.max(1),
        };
        for (process, now) in self.footprints()? {
            let all = if part == 0 { &mut self.settled } else { &mut self.end };
            let kept = all.entry(process).or_default();
            // Until it has settled the highest values count, at the end the present ones.
            *kept = if part == 0 { kept.most(now) } else { now };
        }
        Ok(())
    }

    fn footprints(&mut self) -> Result<Vec<((String, u32), Footprint)>> {
        let processes = self.cluster.processes().into_iter();
        processes.map(|process| Footprint::of(process.1).map(|footprint| (process, footprint))).collect()
    }

    fn judge(&self, report: &Report) -> Endured {
        for fault in &report.faults {
            println!("  fault: {fault}");
        }
        let growth = self.end.iter().filter_map(|(process, end)| {
            let settled = *self.settled.get(process)?;
            Some((process.0.clone(), Growth { settled, end: *end }))
        });
        Endured {
            story: match self.story {
                Story::Soak { .. } => "soak".into(),
                Story::Reloads { .. } => "reloads".into(),
            },
            seconds: self.started.elapsed().as_secs(),
            connections: report.fresh_ok,
            failed: report.fresh_failed,
            broken: report.broken.total() + report.unopened,
            kept: report.kept,
            asked: report.asked,
            owners: self.owners,
            reloads: self.reloads.into(),
            paces: self.paces,
            growth: growth.collect(),
        }
    }
}

impl Footprint {
    fn most(self, other: Self) -> Self {
        Self {
            resident_kib: self.resident_kib.max(other.resident_kib),
            threads: self.threads.max(other.threads),
            files: self.files.max(other.files),
        }
    }
}
