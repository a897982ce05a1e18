//! Many VIPAs on real processes: how long a cold start and a takeover of all of them take, and what they cost at rest.
//!
//! Three routers and three targets on one machine. Times are measured where a user sees them: announcements at a
//! client's interface, `vipactl status` from its start to its end. All VIPAs have the same owner, one service and the
//! same candidates.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    cluster::{Cluster, Plan, SERVICE_PORT, VIPA},
    load::{Announcement, LISTENING, clock, read_announcements},
    process::{Process, wait},
    programs,
};

const ROUTERS: u8 = 3;
const TARGETS: u8 = 3;
const LEASE_MS: u64 = 500;
/// Time after which the run is given up, even on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The time over which processor time at rest is measured.
const REST: Duration = Duration::from_secs(10);
/// Between two questions during a takeover: as `watch -n 0.1` asks. Without a pause the questions alone would load a core.
const BETWEEN_ANSWERS: Duration = Duration::from_millis(100);
/// How long `vipactl status` may take for each thousand VIPAs.
const STATUS_MS_PER_THOUSAND: u64 = 100;
/// Answers at rest of which the median is used.
const ANSWERS: usize = 9;
/// How long a client waits for its connection to a VIPA.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two readings of the announcements.
const LOOK: Duration = Duration::from_millis(20);

/// Results for one number of VIPAs; all times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub vipas: u32,
    /// From the start of the first router until all VIPAs were announced.
    pub cold_start_ms: u64,
    /// From the kill of the owner until its successor announced the first VIPA, and the last one.
    pub takeover_first_ms: u64,
    pub takeover_last_ms: u64,
    /// The median answer to `vipactl status` at the owner at rest, and at the successor the slowest one during the takeover.
    pub status_at_rest_ms: u64,
    pub status_ms: u64,
    /// Leases that ran out at any router, from the start to the end.
    pub leases_lost: u64,
    /// Processor time at rest, percent of a core, by process.
    pub rest_percent: BTreeMap<String, f64>,
    /// Resident memory at rest, by process.
    pub resident_kib: BTreeMap<String, u64>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vipas,
            cold_start_ms,
            takeover_first_ms,
            takeover_last_ms,
            status_at_rest_ms,
            status_ms,
            leases_lost,
            rest_percent,
            resident_kib,
        } = self;
        write!(
            f,
            "{vipas} VIPAs: all announced {cold_start_ms} ms after the first router's start; after the owner's death the first \
             after {takeover_first_ms} ms and the last after {takeover_last_ms} ms, status within {status_ms} ms then and in \
             {status_at_rest_ms} ms at rest{}; {leases_lost} leases lost; at rest",
            if self.is_status_late() { ", WHICH IS LATE" } else { "" }
        )?;
        for (name, percent) in rest_percent {
            write!(f, " {name} {percent:.1} % {} MB", resident_kib.get(name).unwrap_or(&0) / 1024)?;
        }
        Ok(())
    }
}

impl Measured {
    /// Whether an operator has to wait too long.
    #[must_use]
    pub fn is_status_late(&self) -> bool {
        let allowed = STATUS_MS_PER_THOUSAND * u64::from(self.vipas).div_ceil(1_000);
        self.status_ms.max(self.status_at_rest_ms) > allowed
    }
}

/// Measures a cluster of each number of VIPAs in turn.
///
/// # Errors
/// When a cluster does not come to own all VIPAs.
pub fn run(counts: &[u32]) -> Result<Vec<Measured>> {
    counts.iter().map(|vipas| measure(*vipas).with_context(|| format!("{vipas} VIPAs"))).collect()
}

fn measure(vipas: u32) -> Result<Measured> {
    let plan = Plan {
        routers: ROUTERS,
        targets: TARGETS,
        lease_ms: LEASE_MS,
        connections: 100,
        further: further(vipas),
        absent: (1..=ROUTERS).map(|number| format!("r{number}")).collect(),
        ..Plan::new("scale")
    };
    let mut cluster = Cluster::start(plan)?;
    let end = Story { cluster: &mut cluster, vipas }.tell();
    if end.is_err() {
        cluster.show_logs();
    }
    end
}

/// All VIPAs but the plan's own.
fn further(vipas: u32) -> String {
    let mut text = String::new();
    for number in 1..vipas {
        let _ = write!(
            text,
            "\n[[vipa]]\naddress = \"{}\"\nranks = {{ r1 = 200, r2 = 190, r3 = 180 }}\n\n[[vipa.service]]\nprotocol = \
             \"tcp\"\nports = 80\ncandidates = [\"10.77.0.31\", \"10.77.0.32\", \"10.77.0.33\"]\n",
            address(number)
        );
    }
    text
}

fn address(number: u32) -> Ipv4Addr {
    let [_, _, high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 78, high, low)
}

struct Story<'a> {
    cluster: &'a mut Cluster,
    vipas: u32,
}

impl Story<'_> {
    fn tell(&mut self) -> Result<Measured> {
        let begun = clock();
        let watch = self.watch("cold")?;
        for router in ["r1", "r2", "r3"] {
            self.cluster.router(router).start()?;
        }
        let started = self.wait_announced(&watch)?;
        let cold_start_ms = last(&started) / 1_000_000 - begun / 1_000_000;
        self.wait_settled()?;
        self.touch_each()?;
        let (rest_percent, resident_kib) = self.rest()?;
        let mut answers = (0..ANSWERS).map(|_| self.ask_status("r1")).collect::<Result<Vec<_>>>()?;
        answers.sort_unstable();
        let status_at_rest_ms = answers[ANSWERS / 2].as_millis() as u64;

        let watch = self.watch("takeover")?;
        let killed = self.cluster.router("r1").kill()?;
        let mut slowest = Duration::ZERO;
        let announced = wait("all VIPAs to be announced by a successor", PATIENCE, || {
            match self.ask_status("r2") {
                Ok(took) => slowest = slowest.max(took),
                Err(error) => return Some(Err(error)),
            }
            sleep(BETWEEN_ANSWERS);
            let announced = self.announced(&watch, killed);
            (announced.len() as u32 >= self.vipas).then_some(Ok(announced))
        })??;
        let since = |at: u64| (at - killed) / 1_000_000;
        Ok(Measured {
            vipas: self.vipas,
            cold_start_ms,
            takeover_first_ms: announced.first().map_or(0, |first| since(first.at)),
            takeover_last_ms: since(last(&announced)),
            status_at_rest_ms,
            status_ms: slowest.as_millis() as u64,
            leases_lost: self.leases_lost()?,
            rest_percent,
            resident_kib,
        })
    }

    /// Opens a connection to each VIPA and closes it: from then on the targets' reports cover all services.
    fn touch_each(&mut self) -> Result<()> {
        // By the owner's port: the kernel keeps no thousands of neighbours.
        let owner = self.cluster.router("r1").port_address().to_string();
        self.cluster.client_host().ip(&["route", "replace", "10.78.0.0/16", "via", &owner])?;
        let vipas = (1..self.vipas).map(address).chain([VIPA]);
        let all: Vec<SocketAddr> = vipas.map(|vipa| (vipa, SERVICE_PORT).into()).collect();
        self.cluster.client_host().inside(move || {
            let open =
                |to: &SocketAddr| TcpStream::connect_timeout(to, CONNECT).with_context(|| format!("cannot open {to}"));
            all.iter().try_for_each(|to| open(to).map(drop))
        })?
    }

    /// How long `vipactl status` takes, its process's start included.
    fn ask_status(&mut self, router: &str) -> Result<Duration> {
        let asked = Instant::now();
        self.cluster.router(router).vipactl(&["status"])?;
        Ok(asked.elapsed())
    }

    /// Captures announcements from now on; returns the log that they are written to.
    fn watch(&self, name: &str) -> Result<Process> {
        let host = self.cluster.client_host();
        let process = host.spawn(&format!("announcements-{name}"), programs::path("vipa-load")?, ["announcements"])?;
        wait("the socket for announcements", PATIENCE, || process.tail(1).contains(LISTENING).then_some(()))?;
        Ok(process)
    }

    /// The first announcement of each VIPA after that moment, in order of time.
    fn announced(&self, watch: &Process, after: u64) -> Vec<Announcement> {
        let text = fs::read_to_string(watch.log()).unwrap_or_default();
        let mut first: BTreeMap<Ipv4Addr, Announcement> = BTreeMap::new();
        for announcement in read_announcements(&text).into_iter().filter(|one| one.at > after) {
            let is_vipa = announcement.address == VIPA || announcement.address.octets()[..2] == [10, 78];
            if is_vipa {
                first.entry(announcement.address).or_insert(announcement);
            }
        }
        let mut all: Vec<_> = first.into_values().collect();
        all.sort_by_key(|announcement| announcement.at);
        all
    }

    fn wait_announced(&mut self, watch: &Process) -> Result<Vec<Announcement>> {
        wait("all VIPAs to be announced", PATIENCE, || {
            let announced = self.announced(watch, 0);
            let done = announced.len() as u32 >= self.vipas;
            if !done {
                sleep(LOOK);
            }
            done.then_some(announced)
        })
    }

    /// Until the highest-ranked router owns everything and every router has all targets.
    fn wait_settled(&mut self) -> Result<()> {
        for name in ["r1", "r2", "r3"] {
            wait(&format!("{name} to agree that r1 owns everything"), PATIENCE, || {
                let owned = self.cluster.router(name).owned_by("r1").ok()?;
                if owned != self.vipas {
                    sleep(Duration::from_millis(200));
                }
                (owned == self.vipas).then_some(())
            })?;
        }
        // Agents set up addresses, and audits begin.
        sleep(Duration::from_secs(3));
        Ok(())
    }

    fn rest(&mut self) -> Result<(BTreeMap<String, f64>, BTreeMap<String, u64>)> {
        let processes = self.cluster.processes();
        let before = processes.iter().map(|(_, id)| processor_time(*id)).collect::<Result<Vec<_>>>()?;
        sleep(REST);
        let (mut percent, mut resident) = (BTreeMap::new(), BTreeMap::new());
        for ((name, id), before) in processes.into_iter().zip(before) {
            let used = processor_time(id)? - before;
            percent.insert(name.clone(), used.as_secs_f64() / REST.as_secs_f64() * 100.0);
            resident.insert(name, crate::endurance::Footprint::of(id)?.resident_kib);
        }
        Ok((percent, resident))
    }

    fn leases_lost(&mut self) -> Result<u64> {
        let mut lost = 0;
        for number in 1..=ROUTERS {
            let text = self.cluster.router(&format!("r{number}")).log_text()?;
            lost += text.matches("ran out").count() as u64;
        }
        Ok(lost)
    }
}

fn last(announcements: &[Announcement]) -> u64 {
    announcements.last().map_or(0, |last| last.at)
}

/// Processor time of all threads of a process except the workers, which poll.
fn processor_time(process: u32) -> Result<Duration> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut ticks = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let folder = thread?.path();
        let (Ok(name), Ok(stat)) = (fs::read_to_string(folder.join("comm")), fs::read_to_string(folder.join("stat")))
        else {
            continue;
        };
        if name.starts_with("worker-") {
            continue;
        }
        // The name may have spaces; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        ticks += number(11) + number(12);
    }
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}
