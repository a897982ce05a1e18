//! Whether this router is fit to route, by its own judgement, and why not.
//!
//! ```text
//!          a fault has lasted unfit_after            no fault for fit_after
//!   Fit ──────────────────────────────────► Unfit ──────────────────────────► Fit
//! ```
//! A fault must last, so that a blink costs no move; and its end must last longer, so that a link that comes and goes does
//! not move VIPAs to and fro. What follows from it is the cluster's to decide: an unfit router hands its VIPAs to whoever is
//! fit, and keeps them when nobody is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use vipa_cluster::Event;
use vipa_model::{Moment, PortId, config::Autonomics};
use vipa_protocol::admin::PortStatistics;

use crate::control::Control;

/// How often the router looks at itself.
const LOOK: Duration = Duration::from_millis(50);
/// Two looks that lie farther apart say that the process itself stood still: what they show is nobody's fault.
const STOOD_STILL: Duration = Duration::from_millis(250);
/// Of a pool's buffers: with fewer free than this share a port is about to receive nothing.
const FEW_BUFFERS: u32 = 64;

/// Whether the device beneath a port is still the one that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortDevice {
    Present,
    /// It is gone, and may come back.
    Gone,
    /// Another one has its name. The port hears nothing of it before it is opened anew.
    Replaced,
}

/// A port as its driver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCondition {
    pub name: String,
    pub device: PortDevice,
    /// `None`: the driver cannot say.
    pub up: Option<bool>,
    /// Packet buffers that are free, and all there are.
    pub buffers_free: u32,
    pub buffers: u32,
}

/// Looks at the ports, never waiting.
pub struct Probe {
    /// Every port; costs little, for it is asked many times a second.
    pub conditions: Box<dyn Fn() -> Vec<PortCondition>>,
    /// Frames that each port's interface has received since it is there, whoever read them, by the port's name. Without those
    /// of which nobody counts while no router runs.
    pub arrived: Box<dyn Fn() -> BTreeMap<String, u64>>,
    /// What every port's driver has counted; `None` where it does not. A NIC may be asked for it, so only who wants to know pays.
    pub statistics: Box<dyn Fn() -> Vec<Option<PortStatistics>>>,
}

/// What one look shows.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) ports: Vec<PortCondition>,
    /// Ports where there is somebody to ask and nobody answers (`port_liveness.rs`).
    pub(crate) unanswered: Vec<String>,
    /// What this host's kernel does that breaks connections (`own_kernel.rs`).
    pub(crate) kernel: Vec<String>,
    /// Turns of each worker so far.
    pub(crate) turns: Vec<u64>,
    /// Whether any target can be reached; `None`: there is nobody to reach.
    pub(crate) targets: Option<bool>,
    /// Whether this router has lost its leases so often that it lets go for a while (`steadiness.rs`).
    pub(crate) keeps_losing_leases: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    PortDown(String),
    PortGone(String),
    PortReplaced(String),
    PortUnanswered(String),
    OwnKernel(String),
    WorkerStalled(usize),
    BuffersExhausted(String),
    NoTarget,
    LeasesLost,
}

impl Fault {
    fn counter(&self) -> usize {
        match self {
            Self::PortDown(_) | Self::PortGone(_) | Self::PortReplaced(_) => 0,
            Self::WorkerStalled(_) => 1,
            Self::BuffersExhausted(_) => 2,
            Self::NoTarget => 3,
            Self::LeasesLost => 4,
            Self::PortUnanswered(_) => 5,
            Self::OwnKernel(_) => 6,
        }
    }
}

const COUNTERS: [&str; 7] = [
    "unfit.port",
    "unfit.worker",
    "unfit.buffers",
    "unfit.targets",
    "unfit.leases",
    "unfit.unanswered",
    "unfit.kernel",
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortDown(port) => write!(f, "port {port} has no link"),
            Self::PortGone(port) => write!(f, "the device of port {port} is gone"),
            Self::PortReplaced(port) => {
                write!(f, "the device of port {port} is another one than was opened: vipad must be started again")
            }
            Self::PortUnanswered(port) => {
                write!(f, "nobody on the network of port {port} answers: look at its switch, VLAN and cable")
            }
            Self::OwnKernel(sentence) => f.write_str(sentence),
            Self::WorkerStalled(worker) => write!(f, "worker {worker} stands still"),
            Self::BuffersExhausted(port) => write!(f, "port {port} has no packet buffers left"),
            Self::NoTarget => f.write_str("no target is reachable"),
            Self::LeasesLost => {
                f.write_str("it keeps losing its leases: too little processor time, or slow links or disks")
            }
        }
    }
}

/// What a look led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Unfit(String),
    Fit,
    /// It takes nothing over before its ports have been answered for the first time.
    Waits(String),
    /// A port can be opened only by a new process.
    Restart(String),
}

#[derive(Debug)]
pub(crate) struct SelfCheck {
    settings: Autonomics,
    looked: Option<Moment>,
    /// Turns of each worker, and since when it has had that many.
    turns: Vec<(u64, Moment)>,
    /// Present faults, and since when.
    faults: BTreeMap<Fault, Moment>,
    unfit: bool,
    /// Of an unfit router: why, as last said.
    why: String,
    /// Of an unfit router: since when it has had no fault.
    good_since: Option<Moment>,
    /// No port has been answered yet since the start.
    starting: bool,
    /// It has been said that another process is needed.
    restarting: bool,
    /// A target was reachable once; before that its absence says nothing of this router.
    has_reached: bool,
    counts: [u64; COUNTERS.len()],
}

impl SelfCheck {
    pub(crate) fn new(settings: Autonomics) -> Self {
        Self {
            settings,
            looked: None,
            turns: Vec::new(),
            faults: BTreeMap::new(),
            unfit: false,
            why: String::new(),
            good_since: None,
            starting: true,
            restarting: false,
            has_reached: false,
            counts: [0; COUNTERS.len()],
        }
    }

    pub(crate) fn set(&mut self, settings: Autonomics) {
        self.settings = settings;
    }

    /// Whether no port has been answered yet since the start.
    pub(crate) fn is_starting(&self) -> bool {
        self.starting
    }

    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.looked.is_none_or(|looked| now.since(looked) >= LOOK)
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        COUNTERS.iter().zip(self.counts).map(|(name, count)| ((*name).to_owned(), count))
    }

    /// Takes one look in; what follows from it, if anything.
    pub(crate) fn look(&mut self, sight: Sight, now: Moment) -> Option<Turn> {
        if self.looked.is_none_or(|looked| now.since(looked) > STOOD_STILL) {
            self.turns.clear();
            self.faults.clear();
            self.good_since = None;
        }
        self.looked = Some(now);
        let present = self.faults_of(sight, now);
        let began = |fault: Fault| (fault.clone(), self.faults.get(&fault).copied().unwrap_or(now));
        self.faults = present.into_iter().map(began).collect();
        if let Some(turn) = self.restart(now) {
            return Some(turn);
        }
        if self.starting {
            return self.start(now);
        }
        if self.unfit { self.recover(now) } else { self.give_up(now) }
    }

    /// What frames do is not known yet, so nothing is taken over; the first answers come within milliseconds.
    fn start(&mut self, now: Moment) -> Option<Turn> {
        let unanswered = |fault: &&Fault| matches!(fault, Fault::PortUnanswered(_));
        let waits: Vec<String> = self.faults.keys().filter(unanswered).map(ToString::to_string).collect();
        self.starting = !waits.is_empty();
        match (self.starting, self.unfit) {
            (true, false) => {
                self.unfit = true;
                Some(Turn::Waits(waits.join("; ")))
            }
            (false, true) if self.faults.is_empty() => {
                self.unfit = false;
                Some(Turn::Fit)
            }
            // Its ports are answered, and something else keeps it from routing.
            (false, true) => self.give_up(now),
            _ => None,
        }
    }

    /// A device with an opened port's name that is another one stays so.
    fn restart(&mut self, now: Moment) -> Option<Turn> {
        let lasts = |(fault, since): &(&Fault, &Moment)| {
            matches!(fault, Fault::PortReplaced(_)) && now.since(**since) >= self.settings.unfit_after
        };
        let (fault, _) = self.faults.iter().find(lasts).filter(|_| !self.restarting)?;
        self.restarting = true;
        self.counts[fault.counter()] += 1;
        Some(Turn::Restart(fault.to_string()))
    }

    fn give_up(&mut self, now: Moment) -> Option<Turn> {
        let lasting = |(_, since): &(&Fault, &Moment)| now.since(**since) >= self.settings.unfit_after;
        let lasting: Vec<&Fault> = self.faults.iter().filter(lasting).map(|(fault, _)| fault).collect();
        if lasting.is_empty() {
            return None;
        }
        let why = lasting.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if self.unfit && self.why == why {
            return None;
        }
        for fault in lasting {
            self.counts[fault.counter()] += 1;
        }
        (self.unfit, self.good_since) = (true, None);
        self.why.clone_from(&why);
        Some(Turn::Unfit(why))
    }

    fn recover(&mut self, now: Moment) -> Option<Turn> {
        if !self.faults.is_empty() {
            self.good_since = None;
            // It may be for another reason by now.
            return if self.restarting { None } else { self.give_up(now) };
        }
        let since = *self.good_since.get_or_insert(now);
        if now.since(since) < self.settings.fit_after {
            return None;
        }
        (self.unfit, self.good_since) = (false, None);
        self.why.clear();
        Some(Turn::Fit)
    }

    fn faults_of(&mut self, sight: Sight, now: Moment) -> Vec<Fault> {
        let Sight { ports, unanswered, kernel, turns, targets, keeps_losing_leases } = sight;
        let mut faults: Vec<Fault> = unanswered.into_iter().map(Fault::PortUnanswered).collect();
        faults.extend(kernel.into_iter().map(Fault::OwnKernel));
        if keeps_losing_leases {
            faults.push(Fault::LeasesLost);
        }
        for PortCondition { name, device, up, buffers_free, buffers } in ports {
            match device {
                PortDevice::Present if up == Some(false) => faults.push(Fault::PortDown(name.clone())),
                PortDevice::Present => {}
                PortDevice::Gone => faults.push(Fault::PortGone(name.clone())),
                PortDevice::Replaced => faults.push(Fault::PortReplaced(name.clone())),
            }
            if buffers_free < buffers / FEW_BUFFERS {
                faults.push(Fault::BuffersExhausted(name));
            }
        }
        self.turns.resize(turns.len(), (u64::MAX, now));
        for (worker, (seen, turns)) in self.turns.iter_mut().zip(turns).enumerate() {
            if seen.0 != turns {
                *seen = (turns, now);
            } else if now.since(seen.1) >= self.settings.stall {
                faults.push(Fault::WorkerStalled(worker));
            }
        }
        self.has_reached |= targets == Some(true);
        if self.has_reached && targets == Some(false) {
            faults.push(Fault::NoTarget);
        }
        faults
    }
}

impl Control {
    /// Notices whether this router can route, and tells the cluster when that has changed.
    pub(crate) fn look_at_condition(&mut self, now: Moment) {
        if !self.self_check.is_due(now) {
            return;
        }
        self.look_at_own_kernel();
        let sight = self.sight(now);
        match self.self_check.look(sight, now) {
            Some(Turn::Unfit(why)) => {
                tracing::error!("this router is unfit to route: {why}");
                self.feed(Event::Unfit { why });
            }
            Some(Turn::Waits(why)) => {
                tracing::info!("this router waits until its ports have been answered: {why}");
                self.feed(Event::Unfit { why });
            }
            Some(Turn::Fit) => {
                tracing::info!("this router is fit to route");
                self.feed(Event::Fit);
            }
            Some(Turn::Restart(why)) => {
                tracing::error!("{why}");
                self.stop_because(why);
            }
            None => {}
        }
    }

    fn sight(&mut self, now: Moment) -> Sight {
        let ports = (self.probe.conditions)();
        let mut unanswered = Vec::new();
        // Interfaces of the kernel come after the ports.
        for (index, port) in ports.iter().enumerate().take(self.routing.ports.len()) {
            let has_link = port.device == PortDevice::Present && port.up != Some(false);
            if !has_link {
                self.port_liveness.lose(index);
            }
            let says_enough = !has_link && !self.self_check.is_starting();
            if !says_enough && self.has_somebody_to_ask(index) && !self.port_liveness.is_answered(index, now) {
                unanswered.push(port.name.clone());
            }
        }
        let breaking = self.own_kernel.all().iter().filter(|found| found.breaks_traffic());
        Sight {
            ports,
            unanswered,
            kernel: breaking.map(ToString::to_string).collect(),
            turns: self.channel.workers().iter().map(|shared| shared.heartbeat.turns()).collect(),
            targets: self.targets_reachable(),
            keeps_losing_leases: self.steadiness.leases.is_unsteady(now),
        }
    }

    fn has_somebody_to_ask(&self, port: usize) -> bool {
        let Some(id) = u16::try_from(port).ok().map(PortId) else { return false };
        let is_named = self.self_check.is_starting() && self.ports_to_answer.contains(&id);
        is_named || !self.routing.neighbours.some_at(id, 0, 1).is_empty()
    }

    /// Whether packets and reports pass between this router and any candidate; `None`: it has none.
    fn targets_reachable(&self) -> Option<bool> {
        let vipas = &self.routing.vipas;
        let listened = vipas.iter().flat_map(|vipa| &vipa.listeners).filter(|(_, ports)| !ports.is_empty());
        let heard: BTreeSet<IpAddr> = listened.map(|(target, _)| *target).collect();
        let services = vipas.iter().flat_map(|vipa| &vipa.services);
        // Each of them once: many VIPAs have the same.
        let candidates: BTreeSet<IpAddr> = services.flat_map(|service| service.candidates.iter().copied()).collect();
        let reachable = |target: &IpAddr| self.routing.reaches(*target) && !self.routing.is_silent(*target);
        (!candidates.is_empty()).then(|| candidates.intersection(&heard).any(reachable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        self_check: SelfCheck,
        now: Moment,
        turns: u64,
        sight: Sight,
    }

    impl Bench {
        fn new() -> Self {
            let ms = Duration::from_millis;
            let settings = Autonomics { unfit_after: ms(500), fit_after: ms(5_000), stall: ms(200) };
            let port = PortCondition {
                name: "p0".into(),
                device: PortDevice::Present,
                up: Some(true),
                buffers_free: 4_000,
                buffers: 8_191,
            };
            let sight = Sight {
                ports: vec![port],
                unanswered: Vec::new(),
                kernel: Vec::new(),
                turns: vec![0, 0],
                targets: Some(true),
                keeps_losing_leases: false,
            };
            Self { self_check: SelfCheck::new(settings), now: Moment(1), turns: 0, sight }
        }

        /// Looks at what `see` makes of a healthy router, for so long; when something came of it, and what.
        fn look(&mut self, ms: u64, see: impl Fn(&mut Sight)) -> Vec<(u64, Turn)> {
            let mut came = Vec::new();
            for step in 1..=ms / 50 {
                self.now = self.now + LOOK;
                self.turns += 7;
                let mut sight = self.sight.clone();
                sight.turns.fill(self.turns);
                see(&mut sight);
                came.extend(self.self_check.look(sight, self.now).map(|turn| (step * 50, turn)));
            }
            came
        }
    }

    #[test]
    fn another_reason_is_said_while_it_lasts() {
        let mut bench = Bench::new();
        bench.look(1_000, |_| ());
        let kernel = |sight: &mut Sight| sight.kernel = vec!["the kernel has it".into()];
        assert_eq!(bench.look(1_000, |sight| sight.keeps_losing_leases = true).len(), 1);
        assert_eq!(bench.look(1_000, kernel).last().map(|(_, turn)| turn.clone()), Some(unfit("the kernel has it")));
        assert_eq!(bench.look(1_000, kernel), []);
    }

    fn unfit(why: &str) -> Turn {
        Turn::Unfit(why.into())
    }

    #[test]
    fn a_fault_that_lasts_makes_unfit_and_its_lasting_end_fit_again() {
        let mut bench = Bench::new();
        let down = |sight: &mut Sight| sight.ports[0].up = Some(false);
        assert_eq!(bench.look(10_000, |_| {}), []);
        assert_eq!(bench.look(450, down), [], "a blink");
        assert_eq!(bench.look(1_000, |_| {}), []);
        assert_eq!(bench.look(3_000, down), [(550, unfit("port p0 has no link"))]);
        assert_eq!(bench.look(4_000, |_| {}), []);
        assert_eq!(bench.look(50, down), [], "not good for long enough: from the beginning");
        assert_eq!(bench.look(10_000, |_| {}), [(5_050, Turn::Fit)]);
    }

    #[test]
    fn every_fault_has_its_words_and_its_counter() {
        for (name, see, why) in [
            (
                "unfit.buffers",
                (|sight| sight.ports[0].buffers_free = 3) as fn(&mut Sight),
                "port p0 has no packet buffers left",
            ),
            ("unfit.worker", |sight| sight.turns[1] = 5, "worker 1 stands still"),
            ("unfit.targets", |sight| sight.targets = Some(false), "no target is reachable"),
            (
                "unfit.leases",
                |sight| sight.keeps_losing_leases = true,
                "it keeps losing its leases: too little processor time, or slow links or disks",
            ),
        ] {
            let mut bench = Bench::new();
            bench.look(1_000, |_| {});
            let turns: Vec<_> = bench.look(2_000, see).into_iter().map(|(_, turn)| turn).collect();
            assert_eq!(turns, [unfit(why)]);
            let counts: Vec<_> = bench.self_check.counts().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counts, [(name.to_owned(), 1)]);
        }
    }

    #[test]
    fn two_faults_at_once_are_both_named() {
        let mut bench = Bench::new();
        bench.look(100, |_| {});
        let turns = bench.look(2_000, |sight| (sight.ports[0].up, sight.targets) = (Some(false), Some(false)));
        assert_eq!(turns, [(550, unfit("port p0 has no link; no target is reachable"))]);
    }

    #[test]
    fn targets_that_never_were_reachable_and_ports_that_cannot_say_are_no_fault() {
        let mut bench = Bench::new();
        let unknown = |sight: &mut Sight| (sight.ports[0].up, sight.targets) = (None, Some(false));
        assert_eq!(bench.look(10_000, unknown), []);
    }

    #[test]
    fn nothing_is_taken_over_before_the_first_answer_and_at_once_after_it() {
        let mut bench = Bench::new();
        let unanswered = |sight: &mut Sight| sight.unanswered = vec!["p0".into()];
        let why = "nobody on the network of port p0 answers: look at its switch, VLAN and cable";
        assert_eq!(bench.look(10_000, unanswered), [(50, Turn::Waits(why.into()))]);
        assert_eq!(bench.look(1_000, |_| {}), [(50, Turn::Fit)]);
        assert_eq!(bench.look(1_000, unanswered), [(550, unfit(why))], "later it is a fault like any other");
        assert_eq!(bench.look(10_000, |_| {}), [(5_050, Turn::Fit)]);
    }

    #[test]
    fn a_first_answer_is_not_enough_where_there_is_another_fault() {
        let mut bench = Bench::new();
        let both = |sight: &mut Sight| {
            sight.unanswered = vec!["p0".into()];
            sight.kernel = vec!["the kernel resets".into()];
        };
        bench.look(50, both);
        let kernel = |sight: &mut Sight| sight.kernel = vec!["the kernel resets".into()];
        assert_eq!(bench.look(1_000, kernel), [(500, unfit("the kernel resets"))]);
        assert_eq!(bench.look(10_000, |_| {}), [(5_050, Turn::Fit)]);
    }

    #[test]
    fn a_device_that_is_gone_makes_unfit_and_one_that_has_taken_its_place_needs_another_process() {
        let mut bench = Bench::new();
        let device = |device| move |sight: &mut Sight| sight.ports[0].device = device;
        bench.look(1_000, |_| {});
        assert_eq!(bench.look(2_000, device(PortDevice::Gone)), [(550, unfit("the device of port p0 is gone"))]);
        let why = "the device of port p0 is another one than was opened: vipad must be started again";
        assert_eq!(bench.look(10_000, device(PortDevice::Replaced)), [(550, Turn::Restart(why.into()))]);
    }

    #[test]
    fn a_process_that_stood_still_and_goes_on_blames_nobody() {
        let mut bench = Bench::new();
        bench.look(1_000, |_| {});
        bench.now = bench.now + Duration::from_secs(60);
        bench.turns -= 7; // No worker has turned meanwhile.
        assert_eq!(bench.look(1_000, |_| {}), []);
    }
}
