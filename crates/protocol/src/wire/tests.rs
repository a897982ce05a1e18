use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proptest::{collection::vec, option, prelude::*};
use vipa_model::{
    Agentless, Balance, Choice, Connection, ConnectionState, Delivery, Epoch, Forwarding, Incarnation, Mac, NodeName,
    Orphans, Pace, PortRange, Protocol, Rank, Service, ServicePath, Sources, TargetPath, Weights,
};

use super::*;
use crate::*;

fn name() -> impl Strategy<Value = NodeName> {
    "[a-z0-9]{1,12}".prop_map(|text| text.parse().expect("a node name"))
}

/// Free text as it is after it has been read once.
fn text() -> impl Strategy<Value = String> {
    ".{0,40}".prop_map(|text| vipa_model::printable(&text, text::MAX_NAME))
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn state() -> impl Strategy<Value = ConnectionState> {
    prop_oneof![Just(ConnectionState::HalfOpen), Just(ConnectionState::Established), Just(ConnectionState::Closing)]
}

fn connection() -> impl Strategy<Value = Connection> {
    (protocol(), any::<SocketAddr>(), any::<u16>()).prop_map(|(protocol, client, port)| {
        // Flow labels and scopes of IPv6 are no part of a connection's name.
        Connection { protocol, client: SocketAddr::new(client.ip(), client.port()), port }
    })
}

fn service() -> impl Strategy<Value = Service> {
    let orphans = prop_oneof![Just(Orphans::Reset), Just(Orphans::Drop), Just(Orphans::Balance)];
    let balance = prop_oneof![Just(Balance::Maglev), Just(Balance::RoundRobin), Just(Balance::WeightedActive)];
    (protocol(), any::<(u16, u16)>(), (balance, choice()), orphans, vec(any::<IpAddr>(), 0..5), delivery(), sources())
        .prop_map(|(protocol, (first, last), (balance, choice), orphans, candidates, delivery, sources)| {
            let ports = PortRange { first, last };
            Service { protocol, ports, delivery, balance, choice, orphans, sources, candidates }
        })
}

fn choice() -> impl Strategy<Value = Choice> {
    let exceptions = vec((any::<IpAddr>(), any::<u16>()), 0..3);
    let question = prop_oneof![
        Just(vipa_model::Question::Ping),
        any::<u16>().prop_map(vipa_model::Question::Tcp),
        (any::<u16>(), "/[a-z]{0,9}", any::<(u16, u16)>())
            .prop_map(|(port, path, statuses)| vipa_model::Question::Http { port, path, statuses }),
    ];
    let agentless = (any::<IpAddr>(), question, any::<(u32, u32)>()).prop_map(|(address, question, (rise, fall))| {
        let second = std::time::Duration::from_secs(1);
        Agentless { address, question, pace: Pace { interval: second, timeout: second, rise, fall } }
    });
    (prop::sample::select(Weights::ALL.to_vec()), exceptions, vec(agentless, 0..3))
        .prop_map(|(weights, exceptions, agentless)| Choice { weights, exceptions, agentless })
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let forwarding = || prop::sample::select(Forwarding::ALL.to_vec());
    let exceptions = vec((any::<IpAddr>(), forwarding()), 0..3);
    (forwarding(), exceptions, option::of(any::<u16>()), any::<(bool, bool)>()).prop_map(
        |(forwarding, exceptions, target_port, (path_mtu, clamp_mss))| Delivery {
            forwarding,
            exceptions,
            target_port,
            path_mtu,
            clamp_mss,
        },
    )
}

fn sources() -> impl Strategy<Value = Sources> {
    let prefixes = || vec(any::<IpAddr>().prop_map(ipnet::IpNet::from), 0..3);
    (prefixes(), prefixes(), option::of(any::<u32>())).prop_map(|(allow, deny, new_per_second)| Sources {
        allow,
        deny,
        new_per_second,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    use vipa_model::EntryState::{Closing, HalfOpen, Held, Open, Udp};
    let states = prop::sample::select(vec![HalfOpen, Open, Held, Closing, Udp]);
    (connection(), any::<IpAddr>(), states).prop_map(|(connection, target, state)| Entry { connection, target, state })
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![Just(Part::Only), Just(Part::First), Just(Part::Middle), Just(Part::Last)]
}

fn position() -> impl Strategy<Value = Position> {
    any::<(u64, u64)>().prop_map(|(incarnation, sequence)| Position { incarnation: Incarnation(incarnation), sequence })
}

fn run() -> impl Strategy<Value = Run> {
    let change = prop_oneof![state().prop_map(Change::Opened), Just(Change::Closed)];
    let record = (connection(), change).prop_map(|(connection, change)| Record { connection, change });
    prop_oneof![
        (any::<u64>(), vec(record, 0..20)).prop_map(|(after, records)| Run::Tail { after, records }),
        (part(), vec((connection(), state()), 0..20))
            .prop_map(|(part, connections)| Run::Snapshot { part, connections }),
    ]
}

fn hello() -> impl Strategy<Value = Message> {
    let role = prop_oneof![Just(Role::Router), any::<IpAddr>().prop_map(|address| Role::Target { address })];
    (any::<u16>(), ".{0,20}", name(), (role, vec(any::<IpAddr>(), 0..4)), any::<u64>(), vec(name(), 0..7)).prop_map(
        |(version, cluster, node, (role, addresses), incarnation, voters)| {
            let incarnation = Incarnation(incarnation);
            let key = crate::KeyDigest::new([version as u8; 32]);
            let voters = vipa_model::Voters::new(version.into(), voters);
            Message::Hello(Hello { version, cluster, key, node, role, addresses, incarnation, voters })
        },
    )
}

fn ballots() -> impl Strategy<Value = Message> {
    let ballot = prop_oneof![Just(Ballot::Trial), any::<u8>().prop_map(|round| Ballot::Real { round })];
    let reason = prop_oneof![
        Just(Refusal::OwnerAlive),
        Just(Refusal::Granted),
        Just(Refusal::Recovering),
        Just(Refusal::Voters),
        Just(Refusal::Superseded)
    ];
    (any::<IpAddr>(), epoch(), ballot, reason, epoch(), 0..3).prop_map(
        |(vipa, epoch, ballot, reason, highest, kind)| match kind {
            0 => Message::Claims(Claims { claims: vec![Claim { vipa, epoch, ballot }; 3] }),
            1 => Message::Votes(Votes { votes: vec![Vote::Grant(Grant { vipa, epoch, ballot })] }),
            _ => {
                let refuse = Vote::Refuse(Refuse { vipa, epoch, ballot, reason, highest });
                Message::Votes(Votes { votes: vec![refuse.clone(), refuse] })
            }
        },
    )
}

fn questions() -> impl Strategy<Value = Message> {
    let holds =
        (any::<IpAddr>(), vec(any::<u16>(), 0..4)).prop_map(|(vipa, buckets)| Question::Holds { vipa, buckets });
    let question = prop_oneof![holds, any::<IpAddr>().prop_map(|vipa| Question::Settings { vipa })];
    let held = (position(), vec(connection(), 0..20)).prop_map(|(upto, connections)| {
        let mut digests = Digests::default();
        connections.iter().for_each(|connection| digests.add(connection));
        Reply::Holds(Holds { upto, digests, connections })
    });
    let settings = (
        vec((name(), any::<u8>().prop_map(Rank)), 0..3),
        option::of(vec(service(), 0..3)),
        vec((text(), text()), 0..3),
    )
        .prop_map(|(ranks, services, others)| Reply::Settings(question::VipaSettings { ranks, services, others }));
    let reply = prop_oneof![held, settings, Just(Reply::Unknown)];
    prop_oneof![
        (any::<u64>(), question).prop_map(|(token, question)| Message::QueryRequest(QueryRequest { token, question })),
        (any::<u64>(), reply).prop_map(|(token, reply)| Message::QueryReply(QueryReply { token, reply })),
    ]
}

fn beats() -> impl Strategy<Value = Message> {
    let owned = (any::<IpAddr>(), epoch(), option::of(name())).prop_map(|(vipa, epoch, yielding_to)| Owned {
        vipa,
        epoch,
        yielding_to,
    });
    let superseded =
        (any::<IpAddr>(), epoch(), name()).prop_map(|(vipa, epoch, holder)| Superseded { vipa, epoch, holder });
    prop_oneof![
        (any::<u64>(), vec(owned, 0..30)).prop_map(|(sequence, owned)| Message::Beat(Beat { sequence, owned })),
        (any::<u64>(), vec(superseded, 0..30))
            .prop_map(|(sequence, superseded)| Message::BeatAck(BeatAck { sequence, superseded })),
    ]
}

fn distribution() -> impl Strategy<Value = Message> {
    let standing = prop_oneof![Just(Standing::Owner), Just(Standing::Backup)];
    let ranks = vec((name(), any::<u8>().prop_map(Rank)), 0..4);
    (any::<IpAddr>(), epoch(), standing, ranks, vec(service(), 0..4), option::of(position()), 0..4).prop_map(
        |(vipa, epoch, standing, ranks, services, seen, kind)| match kind {
            0 => Message::Associate(Associate { vipa, epoch, standing, seen }),
            1 => Message::Release(Release { vipa, epoch }),
            2 => Message::TakebackRequest(TakebackRequest { vipa }),
            _ => {
                let of = |service: &Service| {
                    service
                        .candidates
                        .iter()
                        .filter_map(|target| Some(TargetPath { target: *target, service: service.path_to(*target)? }))
                        .collect::<Vec<_>>()
                };
                let paths = services.iter().flat_map(of).collect();
                Message::Distribution(Distribution { vipa, epoch, sender: standing, ranks, services, paths })
            }
        },
    )
}

fn reports() -> impl Strategy<Value = Message> {
    let listening = vec((protocol(), any::<u16>()), 0..9);
    let entries = vec(entry(), 0..20);
    prop_oneof![
        (any::<IpAddr>(), listening, vec((any::<IpAddr>(), service()), 0..3)).prop_map(
            |(vipa, listening, services)| {
                let path = |(target, service): (IpAddr, Service)| ServicePath {
                    protocol: service.protocol,
                    ports: service.ports,
                    path: service.delivery.path_to(target),
                };
                let paths = services.into_iter().map(path).collect();
                Message::Listeners(Listeners { vipa, listening, paths })
            }
        ),
        (any::<IpAddr>(), run(), position(), option::of(epoch()))
            .prop_map(|(vipa, run, upto, answers)| Message::Connections(Connections { vipa, run, upto, answers })),
        (any::<IpAddr>(), epoch(), entries, part()).prop_map(|(vipa, epoch, entries, part)| Message::Table(Table {
            vipa,
            epoch,
            entries,
            part
        })),
    ]
}

fn mirror() -> impl Strategy<Value = Message> {
    let opened = vec(entry(), 0..9);
    let round = (any::<u64>(), part(), any::<bool>(), any::<u32>(), opened, vec(connection(), 0..9)).prop_map(
        |(number, part, whole, span_ms, opened, closed)| {
            Copied::Round(Round { number, part, whole, span_ms, opened, closed })
        },
    );
    let locate = vec(connection(), 0..9).prop_map(Copied::Locate);
    let located = vec(entry(), 0..9).prop_map(Copied::Located);
    (any::<IpAddr>(), epoch(), prop_oneof![Just(Copied::Wanted), round, locate, located])
        .prop_map(|(vipa, epoch, copied)| Message::TableReplica(TableReplica { vipa, epoch, copied }))
}

fn load() -> impl Strategy<Value = Message> {
    let accepting = prop::sample::select(vec![Accepting::Yes, Accepting::Full, Accepting::Stalled]);
    let listener = (any::<IpAddr>(), protocol(), any::<u16>(), any::<u32>(), any::<u32>(), accepting).prop_map(
        |(vipa, protocol, port, waiting, room, accepting)| ListenerLoad {
            vipa,
            protocol,
            port,
            waiting,
            room,
            accepting,
        },
    );
    let check = ("[a-z]{1,8}", option::of(any::<u16>()), any::<bool>(), text())
        .prop_map(|(name, port, passing, detail)| CheckResult { name, port, passing, detail });
    let host = any::<(u16, u32, u16, u64, u64)>().prop_map(
        |(cpu_permille, runnable_percent, pressure_permille, passive_opens, connections)| HostLoad {
            cpu_permille,
            runnable_percent,
            pressure_permille,
            passive_opens,
            connections,
        },
    );
    let intent = prop_oneof![Just(Intent::Serve), Just(Intent::Drain)];
    let served = (any::<IpAddr>(), any::<(u16, u16)>(), any::<(u64, u64, u64)>()).prop_map(
        |(vipa, (first, last), (begun, established, accepted))| Served {
            vipa,
            ports: PortRange { first, last },
            begun,
            established,
            accepted,
        },
    );
    (intent, any::<u8>(), host, vec(listener, 0..4), vec(check, 0..4), vec(served, 0..4)).prop_map(
        |(intent, headroom, host, listeners, checks, served)| {
            Message::Load(Load { intent, headroom, host, listeners, checks, served })
        },
    )
}

fn decision() -> impl Strategy<Value = Decision> {
    let matter = prop_oneof![
        any::<IpAddr>().prop_map(|vipa| Matter::Place { vipa }),
        (any::<IpAddr>(), name()).prop_map(|(vipa, router)| Matter::Ownership { vipa, router }),
        name().prop_map(|node| Matter::Membership { node }),
        any::<IpAddr>().prop_map(|target| Matter::Target { target }),
        (any::<IpAddr>(), protocol(), any::<u16>(), option::of(any::<IpAddr>()))
            .prop_map(|(vipa, protocol, port, target)| Matter::Service { vipa, protocol, port, target }),
    ];
    let ruling = prop_oneof![Just(Ruling::AsConfigured), Just(Ruling::Withheld), name().prop_map(Ruling::At)];
    (matter, ruling, any::<u64>(), name()).prop_map(|(matter, ruling, count, by)| Decision {
        matter,
        ruling,
        stamp: Stamp { count, by },
        given: Some(given(count)).filter(|_| count % 2 == 0),
    })
}

fn given(number: u64) -> crate::Given {
    let name = Some(format!("user{number}")).filter(|_| number.is_multiple_of(3));
    crate::Given { by: crate::Operator { uid: number as u32, name }, unix_ms: number }
}

fn decided() -> impl Strategy<Value = Message> {
    let kept = |decisions: Vec<Decision>| decisions.into_iter().map(|d| (d.matter, d.stamp)).collect();
    let follows = vec((name(), any::<u64>().prop_map(Incarnation)), 0..5);
    prop_oneof![
        vec(decision(), 0..9).prop_map(|decisions| Message::Decisions(Decisions { decisions })),
        vec(decision(), 0..9).prop_map(move |decisions| Message::DecisionAck(DecisionAck { kept: kept(decisions) })),
        option::of(text()).prop_map(|unfit| Message::SelfCheckReport(SelfCheckReport { unfit })),
        (any::<IpAddr>(), epoch(), follows).prop_map(|(vipa, epoch, follows)| Message::Yield(Yield {
            vipa,
            epoch,
            follows
        })),
        (any::<IpAddr>(), epoch(), vec(name(), 0..5))
            .prop_map(|(vipa, epoch, missing)| Message::YieldRefused(YieldRefused { vipa, epoch, missing })),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    // Boxed: so many kinds side by side are more than a test's stack holds.
    let owning = prop_oneof![beats().boxed(), ballots().boxed(), distribution().boxed(), decided().boxed()];
    let link_address =
        option::of(any::<[u8; 6]>().prop_map(Mac)).prop_map(|mac| Message::LinkAddress(LinkAddress { mac }));
    let telling = prop_oneof![reports().boxed(), load().boxed(), mirror().boxed(), link_address.boxed()];
    prop_oneof![hello().boxed(), questions().boxed(), owning.boxed(), telling.boxed()]
}

proptest! {
    #[test]
    fn a_message_survives_its_encoding(message in message()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode(&bytes), Ok(message.clone()));

        let framed = encode_framed(&message).unwrap();
        let (prefix, rest) = framed.split_first_chunk::<LENGTH_BYTES>().unwrap();
        prop_assert_eq!(length(*prefix), Ok(rest.len()));
        prop_assert_eq!(rest, &bytes[..]);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_damaged_message_is_another_message_or_an_error(message in message(), at: prop::sample::Index, with: u8) {
        let mut bytes = encode(&message).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = decode(&bytes);
        bytes.truncate(at);
        prop_assert!(decode(&bytes).is_err(), "a message cut short is no message");
    }
}

#[test]
fn what_follows_a_message_is_refused() {
    let release = Message::Release(Release { vipa: IpAddr::V4(Ipv4Addr::LOCALHOST), epoch: Epoch(7) });
    let mut bytes = encode(&release).unwrap();
    bytes.extend([1, 2]);
    assert_eq!(decode(&bytes), Err(WireError::Trailing(2)));
}

#[test]
fn a_message_beyond_the_limit_is_neither_sent_nor_taken() {
    let client = SocketAddr::from(([203, 0, 113, 4], 40_000));
    let entry = Entry {
        connection: Connection { protocol: Protocol::Tcp, client, port: 65_000 },
        target: IpAddr::V4(Ipv4Addr::LOCALHOST),
        state: vipa_model::EntryState::Held,
    };
    let table = |count| {
        let vipa = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Message::Table(Table { vipa, epoch: Epoch(1), entries: vec![entry; count], part: Part::Only })
    };
    assert!(encode_framed(&table(100_000)).is_ok());
    assert!(matches!(encode_framed(&table(400_000)), Err(WireError::TooLong(_))));
    assert!(matches!(encode(&table(400_000)), Err(WireError::TooLong(_))));
    assert_eq!(length(u32::MAX.to_be_bytes()), Err(WireError::TooLong(u32::MAX as usize)));
    assert!(matches!(decode(&vec![0; MAX_MESSAGE + 1]), Err(WireError::TooLong(_))));
}

#[test]
fn free_text_of_a_peer_is_printable_and_short_once_it_is_read() {
    let evil = format!("\u{1b}]0;x\u{7}\u{9b}1m\n{}", "long ".repeat(2_000));
    let shown = "\\u{1b}]0;x\\u{7}\\u{9b}1m\\u{a}long";
    let check = CheckResult { name: evil.clone(), port: None, passing: false, detail: evil.clone() };
    let others = vec![(evil.clone(), evil.clone()); 2 * text::MAX_SETTINGS];
    let settings = question::VipaSettings { ranks: vec![], services: None, others };
    let messages = [
        Message::SelfCheckReport(SelfCheckReport { unfit: Some(evil.clone()) }),
        Message::Load(Load { checks: vec![check], ..Load::unknown() }),
        Message::QueryReply(QueryReply { token: 1, reply: Reply::Settings(settings) }),
    ];
    let read = messages.map(|message| decode(&encode(&message).expect("a message")).expect("the same message"));
    let [
        Message::SelfCheckReport(SelfCheckReport { unfit: Some(unfit) }),
        Message::Load(load),
        Message::QueryReply(QueryReply { reply: Reply::Settings(settings), .. }),
    ] = read
    else {
        panic!("other messages");
    };
    let CheckResult { name, detail, .. } = &load.checks[0];
    assert!(load.is_bounded());
    assert_eq!(settings.others.len(), text::MAX_SETTINGS);
    let (setting, value) = &settings.others[0];
    let limits = [text::MAX_REASON, text::MAX_NAME, load::MAX_CHECK_DETAIL, text::MAX_NAME, text::MAX_SETTING];
    for (said, limit) in [&unfit, name, detail, setting, value].into_iter().zip(limits) {
        assert!(said.starts_with(shown) && said.ends_with('…') && said.len() <= limit, "{said}");
    }
}

/// The fields of 64 bits in these sources' types, as `Type.field`.
fn numbers_of_64_bits(source: &str) -> Vec<String> {
    let (mut numbers, mut of) = (Vec::new(), None);
    for line in source.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
        let declared = ["pub struct ", "struct ", "pub enum "].iter().find_map(|words| line.strip_prefix(words));
        match declared {
            Some(name) => of = name.split(|c: char| !c.is_alphanumeric()).next(),
            None if line.starts_with('}') || line.starts_with("impl") || line.contains("fn ") => of = None,
            None => {}
        }
        let code = line.trim();
        if let (Some(of), Some((before, kind))) = (of, code.split_once(": "))
            && !code.starts_with("//")
            && ["u64", "Epoch", "Incarnation"].iter().any(|number| kind.contains(number))
        {
            let field = before.rsplit([' ', '{']).next().unwrap_or_default();
            numbers.push(format!("{of}.{field}"));
        }
    }
    numbers
}

#[test]
fn every_number_of_64_bits_has_its_bound_in_the_documentation() {
    let sources = [
        include_str!("../message.rs"),
        include_str!("../question.rs"),
        include_str!("../order.rs"),
        include_str!("../load.rs"),
    ];
    let numbers: Vec<String> = sources.into_iter().flat_map(numbers_of_64_bits).collect();
    assert!(
        ["Hello.incarnation", "Run.after", "Yield.follows", "Stamp.count"]
            .iter()
            .all(|known| numbers.contains(&(*known).into())),
        "{numbers:?}"
    );
    let page = include_str!("../../../../docs/security.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let undocumented: Vec<_> =
        numbers.iter().filter(|number| !rows.iter().any(|row| row.contains(&format!("`{number}`")))).collect();
    assert!(undocumented.is_empty(), "docs/security.md does not say what bounds {undocumented:?}");
}

/// What routers ask each other for `vipactl events`, and for the comparison of configurations.
#[test]
fn events_and_digests_come_back_as_they_were_sent() {
    let node: NodeName = "r1".parse().unwrap();
    let vipa: IpAddr = "192.0.2.10".parse().unwrap();
    let service = ServiceKey { vipa, protocol: Protocol::Tcp, ports: PortRange { first: 80, last: 80 } };
    let by = Operator { uid: 1_000, name: Some("alice".into()) };
    let target = |eligibility| EventKind::Target { target: vipa, eligibility, services: vec![service], more: 3 };
    let epoch = Epoch(7);
    let causes = [
        OwnershipCause::First,
        OwnershipCause::Silent { ms: 300 },
        OwnershipCause::Unfit { why: "port p0 has no link".into() },
    ];
    let owned = causes.map(|cause| EventKind::Owned { vipa, epoch, from: Some(node.clone()), cause });
    let kinds = [
        EventKind::Started { version: "0.1.0".into() },
        EventKind::Stopping { why: None },
        EventKind::Rebuilt { vipa, epoch, took_us: 5, connections: 6, missing: 0 },
        EventKind::RouterCheck { router: node.clone(), unfit: Some("it stops".into()) },
        EventKind::Ordered { order: "vipa move".into(), by: by.clone() },
        EventKind::Link { peer: node.clone(), up: true },
        EventKind::LinkRefused { peer: None, address: Some(vipa), why: "no".into() },
        EventKind::Reload { by: Some(by), result: ReloadResult::Refused { why: "no".into() } },
        EventKind::Limit { limit: LimitKind::Table, of: 9, target: None },
        EventKind::AddressConflict { vipa, mac: "02:00:00:00:00:01".into(), port: "p0".into() },
        EventKind::Certificate { subject: "r1".into(), expires_unix_ms: 1, expired: false },
        EventKind::ConfigurationDiffers { peer: node.clone(), vipas: vec![vipa], more: 0 },
        target(Eligibility::Fit),
        target(Eligibility::NotListening),
        target(Eligibility::CheckFailing { check: "web".into(), detail: "503".into() }),
        target(Eligibility::Unreachable { in_vain: 8 }),
        target(Eligibility::NotAccepting { waiting: 3 }),
        target(Eligibility::QueueFull { waiting: 4 }),
    ];
    let kinds = kinds.into_iter().chain(owned);
    let events: Vec<ClusterEvent> = (0..)
        .zip(kinds)
        .map(|(number, what)| ClusterEvent { unix_ms: 1_796_100_339_229 + number, node: node.clone(), number, what })
        .collect();
    for message in [
        Message::QueryRequest(QueryRequest { token: 1, question: Question::Events { since_unix_ms: 7 } }),
        Message::QueryRequest(QueryRequest { token: 2, question: Question::SettingsDigests }),
        Message::QueryReply(QueryReply { token: 1, reply: Reply::Events(events) }),
        Message::QueryReply(QueryReply { token: 2, reply: Reply::SettingsDigests(vec![(vipa, 9)]) }),
    ] {
        let bytes = encode(&message).unwrap_or_else(|error| panic!("{error}: {message:?}"));
        assert_eq!(decode(&bytes), Ok(message));
    }
}
