mod ranks;

use vipa_model::{Balance, ConnectionState::*, Delivery, Forwarding, Mac, Orphans, Service, Sources};
use vipa_protocol::{Change, Claim, Connections, LinkAddress, Listeners, Part, Position, Run, VERSION, Votes};

use super::*;

const VIPA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
const ME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 21));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 22));
const NOW: Moment = Moment(1_000_000_000);

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn connection(client: u16) -> Connection {
    Connection { protocol: Protocol::Tcp, client: ([203, 0, 113, 4], client).into(), port: 80 }
}

fn position(sequence: u64) -> Position {
    Position { incarnation: Incarnation(3), sequence }
}

struct Bench(Target);

impl Bench {
    /// A target that has voted for no router yet, linked to r1 and r2.
    fn linked() -> Self {
        let settings = Settings {
            cluster: "lab".into(),
            key: vipa_protocol::KeyDigest::default(),
            me: name("t1"),
            address: ME,
            incarnation: Incarnation(3),
            voters: vec![name("t1")].into(),
            lease: Duration::from_millis(100),
            kept_records: 4,
        };
        let mut bench = Self(Target::new(settings, Vec::new(), NOW));
        for router in ["r1", "r2"] {
            bench.link(router);
        }
        bench
    }

    fn link(&mut self, router: &str) {
        self.link_from(router, &[]);
    }

    fn link_from(&mut self, router: &str, addresses: &[IpAddr]) -> Vec<Output> {
        self.link_life(router, 1, addresses)
    }

    fn link_life(&mut self, router: &str, life: u64, addresses: &[IpAddr]) -> Vec<Output> {
        let hello = Hello {
            version: VERSION,
            cluster: "lab".into(),
            key: vipa_protocol::KeyDigest::default(),
            node: name(router),
            role: Role::Router,
            addresses: addresses.to_vec(),
            incarnation: Incarnation(life),
            voters: vec![name("t1")].into(),
        };
        self.feed(Event::Connected { peer: name(router), hello })
    }

    /// The outputs, except notes.
    fn feed(&mut self, event: Event) -> Vec<Output> {
        self.feed_at(NOW, event)
    }

    fn feed_at(&mut self, now: Moment, event: Event) -> Vec<Output> {
        let mut out = Vec::new();
        self.0.handle(now, event, &mut out);
        out.retain(|output| !matches!(output, Output::Note(_)));
        out
    }

    fn receive(&mut self, router: &str, message: Message) -> Vec<Output> {
        self.feed(Event::Received { peer: name(router), message })
    }

    fn distribute(&mut self, router: &str, sender: Standing, epoch: u64, candidates: &[IpAddr]) -> Vec<Output> {
        self.distribute_by(Forwarding::Direct, router, sender, epoch, candidates)
    }

    fn distribute_by(
        &mut self,
        forwarding: Forwarding,
        router: &str,
        sender: Standing,
        epoch: u64,
        candidates: &[IpAddr],
    ) -> Vec<Output> {
        let service = Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(80),
            delivery: Delivery { forwarding, ..Delivery::default() },
            balance: Balance::Maglev,
            choice: vipa_model::Choice::default(),
            orphans: Orphans::Reset,
            sources: Sources::default(),
            candidates: candidates.to_vec(),
        };
        let (ranks, services) = (Vec::new(), vec![service]);
        let distribution = Distribution { vipa: VIPA, epoch: Epoch(epoch), sender, ranks, services, paths: Vec::new() };
        self.receive(router, Message::Distribution(distribution))
    }

    fn associate(&mut self, router: &str, standing: Standing, epoch: u64, seen: Option<Position>) -> Vec<Output> {
        let associate = Associate { vipa: VIPA, epoch: Epoch(epoch), standing, seen };
        self.receive(router, Message::Associate(associate))
    }

    fn holds(&mut self, clients: &[u16]) -> Vec<Output> {
        let connections = clients.iter().map(|client| (connection(*client), Established)).collect();
        self.feed(Event::Holds { vipa: VIPA, connections })
    }
}

fn send(to: &str, message: Message) -> Output {
    Output::Send { to: name(to), message }
}

/// The distribution of a list that names the target, which reaches it directly.
fn listeners(to: &str, ports: &[u16]) -> Output {
    let listening = ports.iter().map(|port| (Protocol::Tcp, *port)).collect();
    let path = Delivery::default().path_to(ME);
    let paths = vec![vipa_model::ServicePath { protocol: Protocol::Tcp, ports: PortRange::one(80), path }];
    send(to, Message::Listeners(Listeners { vipa: VIPA, listening, paths }))
}

fn snapshot(to: &str, clients: &[u16], sequence: u64, answers: u64) -> Output {
    let connections = clients.iter().map(|client| (connection(*client), Established)).collect();
    let run = Run::Snapshot { part: Part::Only, connections };
    let answers = Some(Epoch(answers));
    send(to, Message::Connections(Connections { vipa: VIPA, run, upto: position(sequence), answers }))
}

fn tail(to: &str, after: u64, records: &[(u16, Change)], answers: Option<u64>) -> Output {
    let upto = position(after + records.len() as u64);
    let record = |&(client, change)| Record { connection: connection(client), change };
    let run = Run::Tail { after, records: records.iter().map(record).collect() };
    send(to, Message::Connections(Connections { vipa: VIPA, run, upto, answers: answers.map(Epoch) }))
}

#[test]
fn a_grant_that_was_long_on_its_way_to_the_disk_is_not_given_to_the_claimants_next_life() {
    let mut bench = Bench::linked();
    let claim = Message::Claims(Claims {
        claims: vec![Claim { vipa: VIPA, epoch: Epoch(1), ballot: Ballot::Real { round: 0 } }],
    });
    let later = NOW + Duration::from_millis(100);
    let out = bench.feed_at(later, Event::Received { peer: name("r1"), message: claim });
    assert!(matches!(out[..], [Output::StoreVote { token: 1, .. }]), "{out:?}");
    bench.link_life("r1", 2, &[]);
    assert_eq!(bench.feed_at(later, Event::VotesStored { token: 1 }), []);
}

#[test]
fn an_association_is_answered_from_a_look_that_began_after_it() {
    let mut bench = Bench::linked();
    bench.distribute("r1", Standing::Owner, 1, &[ME]);
    assert_eq!(bench.associate("r1", Standing::Owner, 1, None), [Output::Look { token: 1 }]);
    assert_eq!(
        bench.feed(Event::Listening { vipa: VIPA, listening: vec![(Protocol::Tcp, 80), (Protocol::Tcp, 81)] }),
        []
    );
    assert_eq!(bench.holds(&[1, 2]), []);
    assert_eq!(bench.feed(Event::Looked { token: 0 }), []);
    let answer = bench.feed(Event::Looked { token: 1 });
    assert_eq!(answer, [listeners("r1", &[80]), snapshot("r1", &[1, 2], 2, 1)]);
}

#[test]
fn who_knows_the_log_gets_only_what_follows() {
    let mut bench = Bench::linked();
    bench.distribute("r1", Standing::Owner, 1, &[ME]);
    bench.holds(&[1, 2]);
    bench.associate("r2", Standing::Owner, 2, Some(position(1)));
    let answer = bench.feed(Event::Looked { token: 1 });
    assert_eq!(answer, [listeners("r2", &[]), tail("r2", 1, &[(2, Change::Opened(Established))], Some(2))]);
}

#[test]
fn every_change_goes_to_the_owner_and_its_backups_at_once() {
    let mut bench = Bench::linked();
    bench.distribute("r1", Standing::Owner, 1, &[ME]);
    bench.associate("r1", Standing::Owner, 1, None);
    bench.associate("r2", Standing::Backup, 1, None);
    bench.feed(Event::Looked { token: 2 });
    let opened = [(1, Change::Opened(Established))];
    assert_eq!(bench.holds(&[1]), [tail("r1", 0, &opened, None), tail("r2", 0, &opened, None)]);
    let record = Record { connection: connection(1), change: Change::Closed };
    let closed = [(1, Change::Closed)];
    let told = bench.feed(Event::Changed { vipa: VIPA, records: vec![record] });
    assert_eq!(told[..2], [tail("r1", 1, &closed, None), tail("r2", 1, &closed, None)]);
}

#[test]
fn a_listener_that_appears_is_told_at_once_and_once() {
    let mut bench = Bench::linked();
    bench.distribute("r1", Standing::Owner, 1, &[ME]);
    bench.associate("r1", Standing::Owner, 1, None);
    bench.feed(Event::Looked { token: 1 });
    let listening = vec![(Protocol::Tcp, 80), (Protocol::Udp, 80)];
    assert_eq!(bench.feed(Event::Listening { vipa: VIPA, listening: listening.clone() }), [listeners("r1", &[80])]);
    assert_eq!(bench.feed(Event::Listening { vipa: VIPA, listening }), []);
    assert_eq!(bench.feed(Event::Listening { vipa: VIPA, listening: vec![] }), [listeners("r1", &[])]);
}

#[test]
fn a_new_owner_makes_the_old_one_a_backup_and_the_old_one_is_told_when_it_insists() {
    let mut bench = Bench::linked();
    bench.associate("r1", Standing::Owner, 1, None);
    bench.associate("r2", Standing::Owner, 2, None);
    let expected = vec![(name("r1"), Standing::Backup, Epoch(1)), (name("r2"), Standing::Owner, Epoch(2))];
    assert_eq!(bench.0.associations()[&VIPA], expected);
    let (vipa, epoch, ballot, highest) = (VIPA, Epoch(1), Ballot::Real { round: 0 }, Epoch(2));
    let refuse = Refuse { vipa, epoch, ballot, reason: Refusal::Superseded, highest };
    assert_eq!(
        bench.associate("r1", Standing::Owner, 1, None),
        [send("r1", Message::Votes(Votes { votes: vec![Vote::Refuse(refuse)] }))]
    );
}

#[test]
fn the_vipa_is_here_while_a_list_names_this_target_or_a_connection_lives() {
    let mut bench = Bench::linked();
    let watch = Output::Watch {
        vipas: vec![Watched { vipa: VIPA, services: vec![(Protocol::Tcp, PortRange::one(80))], translated: vec![] }],
    };
    let serve = |vipas: &[IpAddr]| Output::Serve { vipas: vipas.to_vec() };
    assert_eq!(bench.distribute("r1", Standing::Owner, 1, &[ME]), [serve(&[VIPA]), watch]);
    bench.holds(&[1]);
    bench.feed(Event::Disconnected { peer: name("r1") });
    assert_eq!(bench.distribute("r2", Standing::Owner, 2, &[OTHER]), []);
    assert_eq!(bench.holds(&[]), [serve(&[])]);
}

#[test]
fn a_backups_list_keeps_the_vipa_here_too() {
    let mut bench = Bench::linked();
    bench.distribute("r2", Standing::Backup, 1, &[ME]);
    assert_eq!(bench.distribute("r1", Standing::Owner, 2, &[OTHER]), []);
}

#[test]
fn tunnels_are_unwrapped_from_every_router_that_was_ever_linked_while_the_vipa_is_here() {
    let router = |last: u8| IpAddr::from([198, 51, 100, last]);
    let told = |out: Vec<Output>| {
        let is_it = |output: Output| match output {
            Output::Unwrap { vipas, routers } => Some((vipas, routers)),
            _ => None,
        };
        out.into_iter().filter_map(is_it).collect::<Vec<_>>()
    };
    let mut bench = Bench::linked();
    assert_eq!(told(bench.link_from("r1", &[router(1)])), []);
    let by_tunnel = bench.distribute_by(Forwarding::Gre, "r1", Standing::Owner, 1, &[ME]);
    assert_eq!(told(by_tunnel), [(vec![VIPA], vec![router(1)])]);
    assert_eq!(told(bench.feed(Event::Disconnected { peer: name("r1") })), []);
    assert_eq!(told(bench.link_from("r2", &[router(2)])), [(vec![VIPA], vec![router(1), router(2)])]);
    bench.holds(&[1]);
    // No list names this target any more; the connection's packets still come.
    assert_eq!(told(bench.distribute("r2", Standing::Owner, 2, &[OTHER])), []);
    assert_eq!(told(bench.holds(&[])), [(vec![], vec![])]);
}

#[test]
fn without_tunnels_nothing_is_unwrapped() {
    let mut bench = Bench::linked();
    bench.link_from("r1", &[OTHER]);
    let out = bench.distribute("r1", Standing::Owner, 1, &[ME]);
    assert!(!out.iter().any(|output| matches!(output, Output::Unwrap { .. })));
}

#[test]
fn a_router_that_left_is_told_nothing_until_it_asks_again() {
    let mut bench = Bench::linked();
    bench.associate("r1", Standing::Owner, 1, None);
    bench.feed(Event::Looked { token: 1 });
    bench.feed(Event::Disconnected { peer: name("r1") });
    assert_eq!(bench.holds(&[1]), [Output::Serve { vipas: vec![VIPA] }]);
    bench.link("r1");
    assert_eq!(bench.holds(&[1, 2]), []);
    bench.associate("r1", Standing::Owner, 1, Some(position(0)));
    let opened = Change::Opened(Established);
    let answer = bench.feed(Event::Looked { token: 2 });
    let no_list = Listeners { vipa: VIPA, listening: Vec::new(), paths: Vec::new() };
    assert_eq!(answer, [send("r1", Message::Listeners(no_list)), tail("r1", 0, &[(1, opened), (2, opened)], Some(1))]);
}

#[test]
fn a_vipa_with_which_nobody_has_any_business_is_forgotten_and_its_log_never_begins_anew() {
    let mut bench = Bench::linked();
    bench.distribute("r1", Standing::Owner, 1, &[ME]);
    bench.associate("r1", Standing::Owner, 1, None);
    bench.feed(Event::Looked { token: 1 });
    bench.holds(&[1, 2]);
    let seen = bench.0.summaries()[0].position;
    let release = |router: &str| Event::Received {
        peer: name(router),
        message: Message::Release(Release { vipa: VIPA, epoch: Epoch(1) }),
    };
    let watched = Watched { vipa: VIPA, services: Vec::new(), translated: Vec::new() };
    assert_eq!(bench.feed(release("r1")), [Output::Watch { vipas: vec![watched] }], "its connections keep it here");
    let out = bench.holds(&[]);
    assert_eq!(out, [Output::Serve { vipas: Vec::new() }, Output::Watch { vipas: Vec::new() }]);
    assert!(bench.0.summaries().is_empty());
    // A router that has read the previous log gets everything, and not the records of another log beyond that position.
    bench.associate("r2", Standing::Owner, 2, Some(seen));
    bench.holds(&[3]);
    let answer = bench.feed(Event::Looked { token: 2 });
    let runs = answer.iter().filter_map(|output| match output {
        Output::Send { message: Message::Connections(connections), .. } => Some(&connections.run),
        _ => None,
    });
    assert!(matches!(&runs.collect::<Vec<_>>()[..], [Run::Snapshot { connections, .. }] if connections.len() == 1));
}

#[test]
fn a_node_with_other_voters_is_not_listened_to() {
    let mut bench = Bench::linked();
    let hello = Hello { voters: vec![name("r9")].into(), node: name("r3"), role: Role::Router, ..bench.0.hello() };
    bench.feed(Event::Connected { peer: name("r3"), hello });
    assert_eq!(bench.associate("r3", Standing::Owner, 9, None), []);
}

#[test]
fn how_the_host_fares_is_told_to_every_router_and_first_of_all_to_a_new_one() {
    let mut bench = Bench::linked();
    let load = Load { headroom: 3, ..Load::unknown() };
    let told = |router| send(router, Message::Load(load.clone()));
    assert_eq!(bench.feed(Event::Fares { load: load.clone() }), [told("r1"), told("r2")]);
    let out = connected_anew(&mut bench);
    assert!(out.contains(&told("r1")), "{out:?}");
}

/// The messages to `r1` on its next link.
fn connected_anew(bench: &mut Bench) -> Vec<Output> {
    bench.feed(Event::Disconnected { peer: name("r1") });
    let mut out = Vec::new();
    let hello = Hello {
        version: VERSION,
        cluster: "lab".into(),
        key: vipa_protocol::KeyDigest::default(),
        node: name("r1"),
        role: Role::Router,
        addresses: vec![],
        incarnation: Incarnation(1),
        voters: vec![name("t1")].into(),
    };
    bench.0.handle(NOW, Event::Connected { peer: name("r1"), hello }, &mut out);
    out
}

#[test]
fn the_ethernet_address_is_told_to_every_router_and_first_of_all_to_a_new_one() {
    let mut bench = Bench::linked();
    let told = |router, mac| send(router, Message::LinkAddress(LinkAddress { mac }));
    let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    assert_eq!(bench.feed(Event::LinkAddress { mac }), [told("r1", mac), told("r2", mac)]);
    assert!(connected_anew(&mut bench).contains(&told("r1", mac)));
    assert_eq!(bench.feed(Event::LinkAddress { mac: None }), [told("r1", None), told("r2", None)]);
    let out = connected_anew(&mut bench);
    assert!(!out.contains(&told("r1", mac)) && !out.contains(&told("r1", None)), "{out:?}");
}

/// The paths to this target that a router receives.
fn paths(out: &[Output]) -> Vec<Forwarding> {
    let said = out.iter().find_map(|output| match output {
        Output::Send { message: Message::Listeners(listeners), .. } => Some(&listeners.paths),
        _ => None,
    });
    said.into_iter().flatten().map(|service| service.path.forwarding).collect()
}

#[test]
fn a_router_that_asks_is_told_how_this_target_is_reached_although_its_own_list_does_not_say() {
    let mut bench = Bench::linked();
    bench.distribute_by(Forwarding::Gue, "r1", Standing::Owner, 1, &[ME]);
    bench.feed(Event::Disconnected { peer: name("r1") });
    bench.distribute("r2", Standing::Owner, 2, &[OTHER]);
    bench.associate("r2", Standing::Owner, 2, None);
    assert_eq!(paths(&bench.feed(Event::Looked { token: 1 })), [Forwarding::Gue]);
    // Another list that names it counts from now on, and the router receives it at once.
    bench.link("r1");
    assert_eq!(paths(&bench.distribute_by(Forwarding::Gre, "r1", Standing::Owner, 3, &[ME])), [Forwarding::Gre]);
    assert_eq!(paths(&bench.distribute_by(Forwarding::Ipip, "r2", Standing::Backup, 3, &[ME])), []);
}

#[test]
fn connections_that_nat_translated_are_watched_until_the_last_has_ended_whatever_the_new_owners_list_says() {
    let watched = |bench: &Bench| bench.0.shell.watched().map(|watched| watched.translated.len()).sum::<usize>();
    let mut bench = Bench::linked();
    bench.distribute_by(Forwarding::Nat, "r1", Standing::Owner, 1, &[ME]);
    bench.holds(&[1]);
    assert_eq!(watched(&bench), 1);
    bench.distribute("r2", Standing::Owner, 2, &[OTHER]);
    for _ in 0..5 {
        assert_eq!(bench.holds(&[1]), []);
        assert_eq!(watched(&bench), 1);
    }
    let out = bench.holds(&[]);
    assert!(matches!(&out[..], [Output::Watch { .. }]), "{out:?}");
    assert_eq!(watched(&bench), 0);
}

#[test]
fn an_agent_that_restarts_hears_from_a_router_how_its_connections_came_here() {
    for forwarding in [Forwarding::Ipip, Forwarding::Nat] {
        let mut bench = Bench::linked();
        bench.link_from("r2", &[OTHER]);
        let path = Delivery { forwarding, ..Delivery::default() }.path_to(ME);
        let service = vipa_model::ServicePath { protocol: Protocol::Tcp, ports: PortRange::one(80), path };
        let mine = vipa_model::TargetPath { target: ME, service };
        let others = vipa_model::TargetPath { target: OTHER, service };
        let distribution = Distribution {
            vipa: VIPA,
            epoch: Epoch(2),
            sender: Standing::Owner,
            ranks: Vec::new(),
            services: Vec::new(),
            paths: vec![mine, others],
        };
        bench.receive("r2", Message::Distribution(distribution));
        bench.holds(&[1]);
        assert_eq!(!bench.0.shell.unwrapped_vipas().is_empty(), forwarding == Forwarding::Ipip, "{forwarding:?}");
        let translated = bench.0.shell.watched().any(|watched| !watched.translated.is_empty());
        assert_eq!(translated, forwarding == Forwarding::Nat, "{forwarding:?}");
    }
}
