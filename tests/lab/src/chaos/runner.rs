//! Runs the schedule, and logs what it observes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    ROUTERS, Settings, TARGETS, VOTERS, What,
    clients::{Clients, Reports},
    evidence::Evidence,
    schedule,
};
use crate::{
    cluster::{Cluster, PATIENCE, Plan, Unreported, VIPA},
    load::clock,
    netns::Plug,
    process::wait,
};

/// Between two checks of the cluster.
const LOOK: Duration = Duration::from_millis(100);
/// Interval at which the clients' state is logged.
const PROGRESS: Duration = Duration::from_secs(10);

/// The candidates as in the plan, and without the last one.
const WHOLE_LIST: &str = "\"10.77.0.33\", \"10.77.0.34\"]";
const SHORT_LIST: &str = "\"10.77.0.33\"]";

/// Result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub settings: Settings,
    pub faults: usize,
    /// Changes of owner that were observed.
    pub owners: usize,
    pub asked: u64,
    pub kept: u64,
    /// At servers that were killed.
    pub lost_with_servers: u64,
    /// All others that are not there to the last byte.
    pub broken: u64,
    pub fresh_ok: u64,
    pub fresh_failed: u64,
    /// Connections of one request that ended correctly.
    pub requests_kept: u64,
}

/// The last line, made for scripts.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            settings,
            faults,
            owners,
            asked,
            kept,
            lost_with_servers,
            broken,
            fresh_ok,
            fresh_failed,
            requests_kept,
        } = self;
        let Settings { seed, time, .. } = settings;
        write!(
            f,
            "chaos: seed {seed}, {} s, {faults} faults, {owners} changes of owner: kept {kept} of {asked} \
             connections, {lost_with_servers} lost with killed servers, {broken} broken; new ones: {fresh_ok} good, \
             {fresh_failed} failed; {requests_kept} of one request, half-closed or on ports used again",
            time.as_secs()
        )
    }
}

/// Runs the whole schedule; an error when the cluster does not recover.
pub fn run(settings: Settings) -> Result<Outcome> {
    let plan = Plan {
        routers: ROUTERS,
        targets: TARGETS,
        connections: settings.connections,
        voters: VOTERS.map(String::from).to_vec(),
        // A target whose agent is away for longer than a takeover waits still holds its connections.
        service_lines: "orphans = \"drop\"".into(),
        // Half-closed connections are silent for longer.
        table_lines: "closing_s = 2\n".into(),
        agent_lines: format!("observe = \"{}\"\n", settings.observe),
        ..Plan::new("chaos")
    };
    let mut runner = Runner::start(plan, settings)?;
    let end = runner.story();
    if end.as_ref().map_or(true, |outcome| outcome.broken > 0) {
        runner.cluster.show_logs();
    }
    end
}

struct Runner {
    cluster: Cluster,
    settings: Settings,
    started: Instant,
    /// Routers that answer no queries now.
    dumb: BTreeSet<String>,
    owner: Option<(u64, String)>,
    owners: usize,
    killed_servers: BTreeSet<String>,
    /// From the kill of a target's servers until they listened again; see [`clock`].
    outages: Vec<(u64, u64)>,
    /// Orders that have not been answered: their words, and the receiver of the answer.
    orders: Vec<(String, JoinHandle<Result<String>>)>,
    evidence: Evidence,
    broken_told: u64,
    told: Instant,
}

/// The beginning or the end of a fault.
enum Edge {
    Begins,
    Ends,
}

/// Counts of lost connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    KilledServers,
    Others,
}

impl Runner {
    fn start(plan: Plan, settings: Settings) -> Result<Self> {
        println!(
            "{ROUTERS} routers, {TARGETS} targets, voters {}; {} connections; seed {}, {} s of faults",
            VOTERS.join(", "),
            settings.connections,
            settings.seed,
            settings.time.as_secs()
        );
        let now = Instant::now();
        Ok(Self {
            cluster: Cluster::start(plan)?,
            settings,
            started: now,
            dumb: BTreeSet::new(),
            owner: None,
            owners: 0,
            killed_servers: BTreeSet::new(),
            outages: Vec::new(),
            orders: Vec::new(),
            evidence: Evidence::default(),
            broken_told: 0,
            told: now,
        })
    }

    fn story(&mut self) -> Result<Outcome> {
        self.cluster.wait_ready()?;
        let mut clients = Clients::start(&self.cluster, &self.settings)?;
        self.started = Instant::now();
        let schedule = schedule(self.settings.seed, self.settings.time);
        let mut edges: Vec<_> =
            schedule.iter().flat_map(|one| [(one.from, Edge::Begins, one), (one.until, Edge::Ends, one)]).collect();
        edges.sort_by_key(|(at, ..)| *at);
        for (at, edge, one) in edges {
            self.watch(&mut clients, at)?;
            match edge {
                Edge::Begins => {
                    let lasts = one.until - one.from;
                    self.say(&format!("{} (for {:.1} s)", one.what, lasts.as_secs_f64()));
                    self.begin(&one.what, &clients)?;
                }
                Edge::Ends => {
                    self.say(&format!("over: {}", one.what));
                    self.end(&one.what)?;
                }
            }
        }
        self.watch(&mut clients, self.settings.time)?;
        self.say("everything is mended; all must find their places again");
        self.repeat_orders()?;
        self.cluster.wait_ready()?;
        self.look();
        clients.talking.mark()?;
        clients.talking.wait_for("an answer on every connection", PATIENCE, |report| report.silent_since_mark == 0)?;
        self.say("every connection has had an answer; the clients close each in good order");
        let end = clients.finish(&self.settings)?;
        let outcome = self.judge(schedule.len(), &end);
        if outcome.broken == 0 {
            self.cluster.wait_agreement(Unreported::Gone)?;
        }
        Ok(outcome)
    }

    fn judge(&self, faults: usize, end: &Reports) -> Outcome {
        let Reports { talking, silent, requests } = end;
        for fault in talking.faults.iter().chain(&silent.faults).chain(&requests.faults) {
            println!("  fault: {fault}");
        }
        Outcome {
            settings: self.settings.clone(),
            faults,
            owners: self.owners,
            asked: talking.asked + silent.asked,
            kept: talking.kept + silent.kept,
            lost_with_servers: self.lost(&talking.lost, Whose::KilledServers)
                + self.lost(&silent.lost, Whose::KilledServers),
            broken: self.broken(end) + talking.unopened + silent.unopened,
            fresh_ok: talking.fresh_ok,
            fresh_failed: talking.fresh_failed,
            requests_kept: requests.kept,
        }
    }

    /// Lost connections that no killed server held, or would have answered.
    fn broken(&self, Reports { talking, silent, requests }: &Reports) -> u64 {
        let beside =
            |(began, ended): &&(u64, u64)| !self.outages.iter().any(|(from, until)| ended > from && began < until);
        let unanswered = requests.unanswered.iter().filter(beside).count() as u64 + requests.unanswered_more;
        [&talking.lost, &silent.lost, &requests.lost].map(|lost| self.lost(lost, Whose::Others)).iter().sum::<u64>()
            + unanswered
    }

    /// The latest faults of connections of one request at servers that were not killed.
    fn faults_of_requests(&self) -> Vec<String> {
        const SHOWN: usize = 20;
        let text = fs::read_to_string(self.cluster.lab().logs().join("requests.log")).unwrap_or_default();
        let of_killed = |line: &str| self.killed_servers.iter().any(|server| line.contains(&format!(" at {server} ")));
        text.lines().rev().filter(|line| !of_killed(line)).take(SHOWN).map(String::from).collect()
    }

    fn lost(&self, lost: &BTreeMap<String, u64>, whose: Whose) -> u64 {
        let counts = |server: &String| self.killed_servers.contains(server) == (whose == Whose::KilledServers);
        lost.iter().filter(|(server, _)| counts(server)).map(|(_, count)| count).sum()
    }

    /// Checks everything until that moment of the run.
    fn watch(&mut self, clients: &mut Clients, until: Duration) -> Result<()> {
        while self.started.elapsed() < until {
            if let Some(end) = self.cluster.ended() {
                bail!("nobody asked it to: {end}");
            }
            self.look();
            self.collect_answers();
            let reports = clients.report();
            for told in self.evidence.look(&mut self.cluster, &reports.requests.late) {
                self.say(&format!("    {told}"));
            }
            let report = &reports.talking;
            let broken = self.broken(&reports);
            if broken > self.broken_told {
                let faults: Vec<_> = report.faults.iter().chain(&reports.silent.faults).cloned().collect();
                let faults = [faults, self.faults_of_requests()].concat();
                self.say(&format!("BROKEN: {broken} connections; the clients' faults: {faults:#?}"));
                self.broken_told = broken;
            }
            if self.told.elapsed() > PROGRESS {
                self.say(&format!(
                    "    {} of {} connections open, {} lost with killed servers, {broken} broken; longest wait {} ms; {} of one \
                     request kept, the longest in {} ms beside its silence",
                    report.open + reports.silent.open,
                    report.asked + reports.silent.asked,
                    self.lost(&report.lost, Whose::KilledServers) + self.lost(&reports.silent.lost, Whose::KilledServers),
                    report.longest_ms,
                    reports.requests.kept,
                    reports.requests.longest_ms
                ));
                clients.talking.mark()?;
                self.told = Instant::now();
            }
            sleep(LOOK.min(until.saturating_sub(self.started.elapsed())));
        }
        Ok(())
    }

    /// Logs when the VIPA has another owner.
    fn look(&mut self) {
        let mut newest = self.owner.clone();
        for number in 1..=ROUTERS {
            let name = format!("r{number}");
            if self.dumb.contains(&name) {
                continue;
            }
            let Ok(view) = self.cluster.router(&name).view() else { continue };
            if view.owns && !view.fenced && newest.as_ref().is_none_or(|(epoch, _)| view.epoch > *epoch) {
                newest = Some((view.epoch, name));
            }
        }
        if newest != self.owner {
            if let Some((epoch, name)) = &newest {
                self.say(&format!("    {name} owns the VIPA, in epoch {epoch}"));
            }
            self.owners += usize::from(self.owner.is_some());
            self.owner = newest;
        }
    }

    fn begin(&mut self, what: &What, clients: &Clients) -> Result<()> {
        let cluster = &mut self.cluster;
        match what {
            What::KillRouter(name) => drop(cluster.router(name).kill()?),
            What::StopRouter(name) => cluster.router(name).stop()?,
            What::FreezeRouter(name) => cluster.router(name).freeze()?,
            What::Unplug(name) => cluster.router(name).host().plug(Plug::Out)?,
            What::CutOff(name) => {
                for node in cluster.nodes().iter().filter(|node| *node != name) {
                    cluster.cut(name, node)?;
                }
            }
            What::CutApart(one, other) => cluster.cut(one, other)?,
            What::CutClients(name) => cluster.cut_clients(name)?,
            What::KillAgent(name) => cluster.target(name).kill_agent()?,
            What::FreezeAgent(name) => cluster.target(name).freeze_agent()?,
            What::KillServers(name) => {
                let reports = clients.report();
                let open =
                    [reports.talking, reports.silent].iter().filter_map(|report| report.servers.get(name)).sum::<u64>();
                // Until they listen again, which is logged at the end.
                self.outages.push((clock(), u64::MAX));
                cluster.target(name).kill_servers()?;
                self.killed_servers.insert(name.clone());
                self.say(&format!("    it held {open} connections"));
            }
            What::Loss(percent) => cluster.lose(*percent)?,
            What::Move(name) => self.order(name, &["vipa", "move", &VIPA.to_string(), name])?,
            What::Leave(name) => self.order(name, &["node", "leave"])?,
            What::Quiesce(name) => {
                let target = cluster.target(name).address().to_string();
                self.order(&self.somebody(), &["target", "quiesce", &target])?;
            }
            What::Reload(name) => {
                self.edit(name, WHOLE_LIST, SHORT_LIST)?;
                self.order(name, &["reload"])?;
            }
        }
        if let What::KillRouter(name) | What::StopRouter(name) | What::FreezeRouter(name) = what {
            self.dumb.insert(name.clone());
        }
        Ok(())
    }

    fn end(&mut self, what: &What) -> Result<()> {
        let cluster = &mut self.cluster;
        match what {
            What::KillRouter(name) | What::StopRouter(name) => cluster.router(name).start()?,
            What::FreezeRouter(name) => cluster.router(name).go_on()?,
            What::Unplug(name) => cluster.router(name).host().plug(Plug::In)?,
            What::CutOff(name) => {
                for node in cluster.nodes().iter().filter(|node| *node != name) {
                    cluster.mend(name, node)?;
                }
            }
            What::CutApart(one, other) => cluster.mend(one, other)?,
            What::CutClients(name) => cluster.mend_clients(name)?,
            What::KillAgent(name) => cluster.target(name).start_agent()?,
            What::FreezeAgent(name) => cluster.target(name).thaw_agent()?,
            What::KillServers(name) => {
                cluster.target(name).start_servers()?;
                // A connection may have been refused a moment before.
                if let Some((_, until)) = self.outages.last_mut() {
                    *until = clock();
                }
            }
            What::Loss(_) => cluster.lose_no_more()?,
            What::Move(_) => self.order(&self.somebody(), &["vipa", "takeback", &VIPA.to_string()])?,
            What::Leave(name) => self.order(&self.somebody(), &["node", "join", name])?,
            What::Quiesce(name) => {
                let target = cluster.target(name).address().to_string();
                self.order(&self.somebody(), &["target", "resume", &target])?;
            }
            What::Reload(name) => {
                self.edit(name, SHORT_LIST, WHOLE_LIST)?;
                self.order(name, &["reload"])?;
            }
        }
        if let What::KillRouter(name) | What::StopRouter(name) | What::FreezeRouter(name) = what {
            self.dumb.remove(name);
        }
        Ok(())
    }

    /// A router that answers queries.
    fn somebody(&self) -> String {
        let all = (1..=ROUTERS).map(|number| format!("r{number}"));
        all.into_iter().find(|name| !self.dumb.contains(name)).unwrap_or_else(|| "r1".into())
    }

    /// Gives an order and does not wait for it: during faults it may be refused, or never be answered.
    fn order(&mut self, router: &str, words: &[&str]) -> Result<()> {
        let answer = self.cluster.router(router).vipactl_beside(words)?;
        self.orders.push((format!("{router}: vipactl {}", words.join(" ")), answer));
        Ok(())
    }

    /// Logs the results of orders.
    fn collect_answers(&mut self) {
        let mut open = Vec::new();
        for (words, answer) in std::mem::take(&mut self.orders) {
            if !answer.is_finished() {
                open.push((words, answer));
                continue;
            }
            match answer.join() {
                Ok(Ok(_)) => self.say(&format!("    {words}: done")),
                Ok(Err(why)) => {
                    let text = why.to_string();
                    // The message of vipactl, without the command line before it.
                    let said = text.rsplit("vipactl: ").next().unwrap_or(&text);
                    self.say(&format!("    {words}: {}", said.trim_end()));
                }
                Err(_) => self.say(&format!("    {words}: the thread that waits for it has panicked")),
            }
        }
        self.orders = open;
    }

    fn edit(&mut self, router: &str, from: &str, to: &str) -> Result<()> {
        let file = self.cluster.router(router).config();
        let text = fs::read_to_string(file)?;
        ensure!(text.contains(from), "{router}'s configuration has no {from}");
        let next = file.with_extension("next");
        fs::write(&next, text.replace(from, to))?;
        Ok(fs::rename(next, file)?)
    }

    /// Gives orders and reloads that the faults prevented again, until they are carried out.
    fn repeat_orders(&mut self) -> Result<()> {
        let mut orders: Vec<(String, Vec<String>)> = Vec::new();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        for number in 1..=ROUTERS {
            let name = format!("r{number}");
            orders.push((name.clone(), words(&["reload"])));
            orders.push(("r1".into(), words(&["node", "join", &name])));
        }
        for number in 1..=TARGETS {
            let target = self.cluster.target(&format!("t{number}")).address().to_string();
            orders.push(("r1".into(), words(&["target", "resume", &target])));
        }
        orders.push(("r1".into(), words(&["vipa", "takeback", &VIPA.to_string()])));
        for (router, words) in orders {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let router = self.cluster.router(&router);
            wait(&format!("{}: vipactl {}", router.name(), words.join(" ")), PATIENCE, || {
                let answer = router.vipactl(&words).ok();
                if answer.is_none() {
                    sleep(LOOK);
                }
                answer
            })?;
        }
        self.collect_answers();
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("[{:5.1} s] {what}", self.started.elapsed().as_secs_f64());
    }
}

impl Outcome {
    /// An error when a connection was lost that no killed server held.
    pub fn check(&self) -> Result<()> {
        ensure!(self.broken == 0, "{} connections broke", self.broken);
        ensure!(self.kept + self.lost_with_servers == self.asked, "{self:?}");
        Ok(())
    }
}
