//! Whether a candidate gets new connections of a service, and how many: decided here and nowhere else.
//!
//! Everything that is known of a target speaks in one order: whether its agent is linked, what listens, what operators
//! want, what the target wants, what its checks say, how its server accepts. The first objection counts, and is what
//! `vipactl` shows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use vipa_cluster::Resting;
use vipa_model::{Agentless, Protocol, Service, Weights};
use vipa_protocol::{Accepting, Eligibility, Intent, Load, load::FULL_HEADROOM};

use crate::network::{probes::ProbeVerdict, reachability::Reachability, responsiveness::Accounts};

/// A candidate, and how fit it is.
pub(crate) type CandidateEligibility = (IpAddr, Eligibility);

/// What one VIPA's candidates are judged by.
#[derive(Clone, Copy)]
pub(crate) struct EligibilityRules<'a> {
    pub(crate) vipa: IpAddr,
    /// What listens where, as the targets last said.
    pub(crate) listeners: &'a BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>,
    /// Where operators keep new connections away from.
    pub(crate) resting: &'a [Resting],
    /// How the linked targets fare.
    pub(crate) loads: &'a BTreeMap<IpAddr, Load>,
    /// What those without an agent have answered.
    pub(crate) found: &'a HashMap<Agentless, ProbeVerdict>,
    pub(crate) reach: &'a Reachability,
    /// How much of what is sent to them they serve.
    pub(crate) accounts: &'a Accounts,
}

/// A candidate over all ports of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// `Fit` if it is on any port; else the first objection.
    pub(crate) fitness: Eligibility,
    pub(crate) listening: u32,
    pub(crate) fit: u32,
    /// Connections that wait to be accepted.
    pub(crate) waiting: u32,
}

impl EligibilityRules<'_> {
    /// Whether `target` gets new connections to one port.
    pub(crate) fn eligibility(&self, service: &Service, target: IpAddr, port: u16) -> Eligibility {
        if !service.candidates.contains(&target) {
            return Eligibility::NotCandidate;
        }
        if let Some(agentless) = service.choice.agentless(target) {
            return self.answered(agentless);
        }
        let load = self.loads.get(&target);
        let listens = self.listeners.get(&target).is_some_and(|open| open.contains(&(service.protocol, port)));
        if !listens {
            return if load.is_some() { Eligibility::NotListening } else { Eligibility::NotLinked };
        }
        let (protocol, ports) = (service.protocol, service.ports);
        if self.resting.contains(&Resting { protocol, ports, target }) {
            return Eligibility::Quiesced;
        }
        match load.map(|load| load.intent) {
            None | Some(Intent::Serve) => self.health(service, target, port),
            Some(Intent::Drain) => Eligibility::Draining,
        }
    }

    /// Whether a linked target that listens can serve one port, whatever operators and its own agent want of it.
    fn health(&self, service: &Service, target: IpAddr, port: u16) -> Eligibility {
        // Its first word of itself is still on the way.
        let Some(load) = self.loads.get(&target) else { return Eligibility::Fit };
        let concerns = |check: &&vipa_protocol::CheckResult| check.port.is_none_or(|of| of == port);
        if let Some(check) = load.checks.iter().filter(concerns).find(|check| !check.passing) {
            return Eligibility::CheckFailing { check: check.name.clone(), detail: check.detail.clone() };
        }
        if let Some(in_vain) = self.reach.in_vain(target).filter(|_| service.protocol == Protocol::Tcp) {
            return Eligibility::Unreachable { in_vain };
        }
        match load.listener(self.vipa, service.protocol, port) {
            None => Eligibility::Fit,
            Some(queue) => match queue.accepting {
                Accepting::Yes => Eligibility::Fit,
                Accepting::Full => Eligibility::QueueFull { waiting: queue.waiting },
                Accepting::Stalled => Eligibility::NotAccepting { waiting: queue.waiting },
            },
        }
    }

    /// Of a candidate without an agent all that is known is what it answers.
    fn answered(&self, agentless: &Agentless) -> Eligibility {
        let failing = |detail: &str| Eligibility::CheckFailing {
            check: agentless.question.to_string(),
            detail: detail.to_owned(),
        };
        match self.found.get(agentless) {
            None => failing("not asked yet"),
            Some(ProbeVerdict { passes: true, .. }) => Eligibility::Fit,
            Some(ProbeVerdict { detail, .. }) => failing(detail),
        }
    }

    /// Its share of new connections, relative to the others'.
    pub(crate) fn weight(&self, service: &Service, target: IpAddr) -> u16 {
        let configured = service.choice.weight_of(target);
        match service.choice.weights {
            Weights::Static => configured,
            Weights::Load => {
                let headroom = u16::from(self.loads.get(&target).map_or(FULL_HEADROOM, |load| load.headroom));
                // Only the owner knows what was sent; datagrams must go alike on every router.
                let level = match service.protocol {
                    Protocol::Tcp => u16::from(self.accounts.level(target, (self.vipa, service.ports))),
                    Protocol::Udp => u16::from(FULL_HEADROOM),
                };
                configured.saturating_mul((headroom * level).div_ceil(u16::from(FULL_HEADROOM)))
            }
        }
    }

    /// Who gets new connections to one port. When nobody is fit, those whose only fault is their slowness.
    pub(crate) fn choose(candidates: &[CandidateEligibility]) -> Vec<IpAddr> {
        let chosen = |wanted: fn(&Eligibility) -> bool| -> Vec<IpAddr> {
            candidates.iter().filter(|(_, fitness)| wanted(fitness)).map(|(target, _)| *target).collect()
        };
        match chosen(|fitness| *fitness == Eligibility::Fit) {
            nobody if nobody.is_empty() => chosen(Eligibility::is_last_resort),
            fit => fit,
        }
    }

    /// Targets that can serve one port and get no new connections, because they are quiesced, drain, or have a share of zero.
    /// The UDP flows that they have stay there.
    pub(crate) fn draining(&self, service: &Service, port: u16, candidates: &[CandidateEligibility]) -> Vec<IpAddr> {
        let is_draining = |(target, fitness): &&CandidateEligibility| match fitness {
            Eligibility::Quiesced | Eligibility::Draining => {
                let health = self.health(service, *target, port);
                health == Eligibility::Fit || health.is_last_resort()
            }
            Eligibility::Fit => self.weight(service, *target) == 0,
            _ => false,
        };
        candidates.iter().filter(is_draining).map(|(target, _)| *target).collect()
    }

    /// Targets that listen and are candidates of the service no more. A client whose SYN one of them has answered sends the SYN again
    /// when the answer is lost, and would get two answers if the SYN went elsewhere now.
    pub(crate) fn removed(&self, service: &Service) -> Vec<IpAddr> {
        if service.protocol != Protocol::Tcp {
            return Vec::new();
        }
        let candidates: BTreeSet<&IpAddr> = service.candidates.iter().collect();
        self.listeners.keys().filter(|target| !candidates.contains(target)).copied().collect()
    }

    /// How fit each candidate of the service is for one port.
    pub(crate) fn candidates_fitness(&self, service: &Service, port: u16) -> Vec<CandidateEligibility> {
        service.candidates.iter().map(|target| (*target, self.eligibility(service, *target, port))).collect()
    }

    /// How a target stands with a service as a whole.
    pub(crate) fn standing(&self, service: &Service, target: IpAddr) -> Standing {
        if let Some(agentless) = service.choice.agentless(target) {
            let fitness = self.answered(agentless);
            let fit = u32::from(fitness == Eligibility::Fit);
            return Standing { fitness, listening: 1, fit, waiting: 0 };
        }
        let (from, to) = ((service.protocol, service.ports.first), (service.protocol, service.ports.last));
        let open = self.listeners.get(&target).into_iter().flat_map(|ports| ports.range(from..=to));
        let judged: Vec<Eligibility> = open.map(|(_, port)| self.eligibility(service, target, *port)).collect();
        let fit = judged.iter().filter(|fitness| **fitness == Eligibility::Fit).count();
        let unheard = || self.eligibility(service, target, service.ports.first);
        let fitness = if fit > 0 { Eligibility::Fit } else { judged.first().cloned().unwrap_or_else(unheard) };
        let queues = self.loads.get(&target).map_or(&[][..], |load| &load.listeners);
        let ours = queues.iter().filter(|queue| {
            (queue.vipa, queue.protocol) == (self.vipa, service.protocol) && service.ports.contains(queue.port)
        });
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Standing {
            fitness,
            listening: count(judged.len()),
            fit: count(fit),
            waiting: ours.map(|queue| queue.waiting).fold(0, u32::saturating_add),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_model::{Choice, PortRange};
    use vipa_protocol::{CheckResult, ListenerLoad};

    use super::*;

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const T2: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 22));

    struct Bench {
        service: Service,
        listeners: BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>,
        resting: Vec<Resting>,
        loads: BTreeMap<IpAddr, Load>,
        found: HashMap<Agentless, ProbeVerdict>,
        reach: Reachability,
        accounts: Accounts,
    }

    impl Bench {
        /// Both targets are linked and listen on port 80.
        fn new() -> Self {
            let service = Service {
                protocol: Protocol::Tcp,
                ports: PortRange::one(80),
                delivery: Default::default(),
                balance: Default::default(),
                choice: Choice::default(),
                orphans: Default::default(),
                sources: Default::default(),
                candidates: vec![T1, T2],
            };
            let listeners = [T1, T2].map(|target| (target, BTreeSet::from([(Protocol::Tcp, 80)]))).into();
            Self {
                service,
                listeners,
                resting: Vec::new(),
                loads: [T1, T2].map(|target| (target, Load::unknown())).into(),
                found: HashMap::new(),
                reach: Reachability::default(),
                accounts: Accounts::default(),
            }
        }

        fn judge(&self) -> EligibilityRules<'_> {
            let Self { listeners, resting, loads, found, reach, accounts, .. } = self;
            EligibilityRules { vipa: VIPA, listeners, resting, loads, found, reach, accounts }
        }

        fn load(&mut self, target: IpAddr) -> &mut Load {
            self.loads.get_mut(&target).unwrap()
        }

        fn accepts(&mut self, target: IpAddr, accepting: Accepting) {
            let queue = ListenerLoad { vipa: VIPA, protocol: Protocol::Tcp, port: 80, waiting: 3, room: 8, accepting };
            self.load(target).listeners = vec![queue];
        }

        fn of_t1(&self) -> (Eligibility, Vec<IpAddr>) {
            (
                self.judge().standing(&self.service, T1).fitness,
                EligibilityRules::choose(&self.judge().candidates_fitness(&self.service, 80)),
            )
        }
    }

    #[test]
    fn the_first_objection_is_told_and_keeps_new_connections_away() {
        let mut bench = Bench::new();
        assert_eq!(bench.of_t1(), (Eligibility::Fit, vec![T1, T2]));
        bench.accepts(T1, Accepting::Yes);
        assert_eq!(bench.of_t1(), (Eligibility::Fit, vec![T1, T2]));
        bench.accepts(T1, Accepting::Full);
        assert_eq!(bench.of_t1(), (Eligibility::QueueFull { waiting: 3 }, vec![T2]));
        bench.accepts(T1, Accepting::Stalled);
        assert_eq!(bench.of_t1(), (Eligibility::NotAccepting { waiting: 3 }, vec![T2]));
        let check = CheckResult { name: "web".into(), port: Some(80), passing: false, detail: "status 500".into() };
        bench.load(T1).checks = vec![check.clone()];
        let failing = Eligibility::CheckFailing { check: "web".into(), detail: "status 500".into() };
        assert_eq!(bench.of_t1(), (failing, vec![T2]));
        bench.load(T1).intent = Intent::Drain;
        assert_eq!(bench.of_t1(), (Eligibility::Draining, vec![T2]));
        bench.resting = vec![Resting { protocol: Protocol::Tcp, ports: PortRange::one(80), target: T1 }];
        assert_eq!(bench.of_t1(), (Eligibility::Quiesced, vec![T2]));
        bench.listeners.remove(&T1);
        assert_eq!(bench.of_t1(), (Eligibility::NotListening, vec![T2]));
        bench.loads.remove(&T1);
        assert_eq!(bench.of_t1(), (Eligibility::NotLinked, vec![T2]));
    }

    #[test]
    fn a_target_that_is_quiesced_or_drains_keeps_its_flows_while_it_serves() {
        let mut bench = Bench::new();
        let draining = |bench: &Bench| {
            let judge = bench.judge();
            judge.draining(&bench.service, 80, &judge.candidates_fitness(&bench.service, 80))
        };
        assert!(draining(&bench).is_empty());
        bench.resting = vec![Resting { protocol: Protocol::Tcp, ports: PortRange::one(80), target: T1 }];
        bench.load(T2).intent = Intent::Drain;
        assert_eq!(draining(&bench), [T1, T2]);
        bench.accepts(T1, Accepting::Full);
        assert_eq!(draining(&bench), [T1, T2], "a slow target serves");
        bench.load(T2).checks =
            vec![CheckResult { name: "web".into(), port: None, passing: false, detail: String::new() }];
        assert_eq!(draining(&bench), [T1], "one whose check fails does not");
        bench.listeners.remove(&T1);
        assert!(draining(&bench).is_empty(), "nor does one that does not listen");
    }

    #[test]
    fn a_check_of_one_port_says_nothing_of_another_and_one_without_a_port_speaks_for_all() {
        let mut bench = Bench::new();
        let check = |port| CheckResult { name: "x".into(), port, passing: false, detail: String::new() };
        bench.load(T1).checks = vec![check(Some(81))];
        assert_eq!(bench.of_t1().0, Eligibility::Fit);
        bench.load(T1).checks = vec![check(None)];
        assert_eq!(bench.of_t1().1, [T2]);
    }

    #[test]
    fn a_candidate_without_an_agent_is_what_it_answers_whatever_an_agent_would_say() {
        let mut bench = Bench::new();
        let second = std::time::Duration::from_secs(1);
        let pace = vipa_model::Pace { interval: second, timeout: second, rise: 1, fall: 1 };
        let agentless = Agentless { address: T1, question: vipa_model::Question::Tcp(80), pace };
        bench.service.choice.agentless = vec![agentless.clone()];
        (bench.listeners, bench.loads) = (BTreeMap::new(), BTreeMap::new());
        let failing = |detail: &str| Eligibility::CheckFailing { check: "tcp 80".into(), detail: detail.into() };
        assert_eq!(bench.of_t1(), (failing("not asked yet"), vec![]));
        bench.found.insert(agentless.clone(), ProbeVerdict { passes: true, detail: String::new() });
        assert_eq!(bench.of_t1(), (Eligibility::Fit, vec![T1]));
        bench.found.insert(agentless, ProbeVerdict { passes: false, detail: "refused".into() });
        assert_eq!(bench.of_t1(), (failing("refused"), vec![]));
    }

    #[test]
    fn when_nobody_is_fit_the_slow_are_used_but_never_the_failing() {
        let mut bench = Bench::new();
        bench.accepts(T1, Accepting::Stalled);
        bench.accepts(T2, Accepting::Full);
        assert_eq!(bench.of_t1().1, [T1, T2]);
        bench.load(T2).intent = Intent::Drain;
        assert_eq!(bench.of_t1().1, [T1]);
    }

    #[test]
    fn a_weight_is_the_configured_one_times_the_headroom_where_the_service_says_so() {
        let mut bench = Bench::new();
        bench.load(T1).headroom = 4;
        bench.service.choice.exceptions = vec![(T1, 3)];
        let weights = |bench: &Bench| [T1, T2].map(|target| bench.judge().weight(&bench.service, target));
        assert_eq!(weights(&bench), [3, 1]);
        bench.service.choice.weights = Weights::Load;
        assert_eq!(weights(&bench), [12, 16]);
        bench.service.choice.exceptions = vec![(T1, Choice::MAX_WEIGHT)];
        bench.load(T1).headroom = FULL_HEADROOM;
        assert_eq!(weights(&bench), [4096, 16], "the highest weight and full headroom fit");
    }
}
