use std::net::{Ipv4Addr, SocketAddr};

use vipa_model::{Connection, ConnectionState, Mac, Protocol, Rank};
use vipa_protocol::{
    Ballot, Change, Claim, Copied, Decision, DecisionAck, Digests, Hello, HostLoad, Intent, LinkAddress, Listeners,
    Load, Matter, Owned, Part, Position, QueryRequest, Question, Record, Ruling, SelfCheckReport, Stamp, Standing,
    Superseded,
};

use super::*;

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
const LIFE: Incarnation = Incarnation(7);
/// The highest epoch that the receiver has.
const KNOWN: Epoch = Epoch(5);

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A receiver that has VIPA's ranks; r1 has one, and r1, r2 and t1 vote.
struct Receiver {
    voters: Voters,
    highest: Epoch,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { voters: ["r1", "r2", "t1"].map(name).to_vec().into(), highest: KNOWN }
    }
}

impl Knowledge for Receiver {
    fn voters(&self) -> &Voters {
        &self.voters
    }

    fn is_elector(&self, node: &NodeName) -> bool {
        self.voters.contain(node)
    }

    fn may_be(&self, _: Standing, vipa: IpAddr, router: &NodeName) -> Option<bool> {
        (vipa == VIPA).then(|| router.as_str() == "r1")
    }

    fn highest_epoch(&self, _: IpAddr) -> Epoch {
        self.highest
    }

    fn highest_stamp(&self) -> u64 {
        100
    }
}

/// A message of this kind as its rightful sender would send it. The compiler ensures that every kind has one.
fn sample(kind: MessageKind, node: &NodeName) -> Message {
    let (vipa, epoch) = (VIPA, Epoch(6));
    let upto = Position { incarnation: LIFE, sequence: 3 };
    let stamp = Stamp { count: 101, by: name("r1") };
    match kind {
        MessageKind::Hello => Message::Hello(Hello {
            version: 1,
            cluster: "lab".into(),
            key: vipa_protocol::KeyDigest::default(),
            node: node.clone(),
            role: Role::Router,
            addresses: vec![],
            incarnation: LIFE,
            voters: Voters::default(),
        }),
        MessageKind::QueryRequest => {
            Message::QueryRequest(QueryRequest { token: 1, question: Question::Settings { vipa } })
        }
        MessageKind::QueryReply => {
            let holds = vipa_protocol::Holds { upto, digests: Digests::default(), connections: vec![] };
            Message::QueryReply(QueryReply { token: 1, reply: Reply::Holds(holds) })
        }
        MessageKind::Beat => Message::Beat(beat(epoch, 1)),
        MessageKind::BeatAck => {
            let superseded = vec![Superseded { vipa, epoch, holder: name("r1") }];
            Message::BeatAck(BeatAck { sequence: 1, superseded })
        }
        MessageKind::Claims => Message::Claims(Claims { claims: vec![Claim { vipa, epoch, ballot: Ballot::Trial }] }),
        MessageKind::Votes => {
            let grant = Vote::Grant(Grant { vipa, epoch, ballot: Ballot::Trial });
            Message::Votes(Votes { votes: vec![grant] })
        }
        MessageKind::Distribution => Message::Distribution(Distribution {
            vipa,
            epoch,
            sender: Standing::Owner,
            ranks: vec![(node.clone(), Rank(9))],
            services: vec![],
            paths: vec![],
        }),
        MessageKind::Associate => Message::Associate(Associate { vipa, epoch, standing: Standing::Owner, seen: None }),
        MessageKind::Release => Message::Release(Release { vipa, epoch }),
        MessageKind::Listeners => Message::Listeners(Listeners { vipa, listening: vec![], paths: vec![] }),
        MessageKind::Connections => tail(LIFE, 2, 3),
        MessageKind::Yield => Message::Yield(Yield { vipa, epoch, follows: vec![] }),
        MessageKind::YieldRefused => Message::YieldRefused(YieldRefused { vipa, epoch, missing: vec![] }),
        MessageKind::Table => Message::Table(Table { vipa, epoch, entries: vec![], part: Part::Only }),
        MessageKind::Load => Message::Load(Load {
            intent: Intent::Serve,
            headroom: 1,
            host: HostLoad::default(),
            listeners: vec![],
            checks: vec![],
            served: vec![],
        }),
        MessageKind::TableReplica => Message::TableReplica(TableReplica { vipa, epoch, copied: Copied::Wanted }),
        MessageKind::TakebackRequest => Message::TakebackRequest(TakebackRequest { vipa }),
        MessageKind::SelfCheckReport => Message::SelfCheckReport(SelfCheckReport { unfit: None }),
        MessageKind::Decisions => {
            let matter = Matter::Target { target: TARGET };
            Message::Decisions(Decisions {
                decisions: vec![Decision { matter, ruling: Ruling::Withheld, stamp, given: None }],
            })
        }
        MessageKind::DecisionAck => {
            Message::DecisionAck(DecisionAck { kept: vec![(Matter::Target { target: TARGET }, stamp)] })
        }
        MessageKind::LinkAddress => Message::LinkAddress(LinkAddress { mac: Some(Mac([2, 0, 0, 0, 0, 1])) }),
        MessageKind::Voters => Message::Voters(Voters::default()),
    }
}

fn beat(epoch: Epoch, sequence: u64) -> Beat {
    Beat { sequence, owned: vec![Owned { vipa: VIPA, epoch, yielding_to: None }] }
}

fn refuse(reason: Refusal, highest: Epoch) -> Message {
    let refuse = Refuse { vipa: VIPA, epoch: KNOWN, ballot: Ballot::Trial, reason, highest };
    Message::Votes(Votes { votes: vec![Vote::Refuse(refuse)] })
}

fn tail(incarnation: Incarnation, after: u64, upto: u64) -> Message {
    let client = SocketAddr::from(([203, 0, 113, 4], 4000));
    let connection = Connection { protocol: Protocol::Tcp, client, port: 80 };
    let records = vec![Record { connection, change: Change::Opened(ConnectionState::Established) }];
    let run = Run::Tail { after, records };
    Message::Connections(Connections { vipa: VIPA, run, upto: Position { incarnation, sequence: upto }, answers: None })
}

/// Kinds of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Teller {
    /// A router with a rank for the VIPA, and a vote.
    Ranked,
    /// A router without either.
    Unranked,
    /// A router that votes and has no rank.
    VoterOnly,
    /// A target that votes.
    VotingTarget,
    Target,
}

impl Teller {
    const ALL: [Self; 5] = [Self::Ranked, Self::Unranked, Self::VoterOnly, Self::VotingTarget, Self::Target];

    fn node(self) -> NodeName {
        name(match self {
            Self::Ranked => "r1",
            Self::Unranked => "r9",
            Self::VoterOnly => "r2",
            Self::VotingTarget => "t1",
            Self::Target => "t9",
        })
    }

    fn says(self, message: &Message, known: &Receiver) -> Result<(), Denial> {
        let role = match self {
            Self::Ranked | Self::Unranked | Self::VoterOnly => Role::Router,
            Self::VotingTarget | Self::Target => Role::Target { address: TARGET },
        };
        may_send(&Sender { node: &self.node(), role: &role, incarnation: LIFE }, message, known)
    }
}

#[test]
fn every_message_is_taken_from_those_who_may_send_it_and_from_nobody_else() {
    use MessageKind as K;
    use Teller::{Ranked, Target, Unranked, VoterOnly, VotingTarget};
    for kind in K::ALL {
        // Exhaustive on purpose: a new message must name its permitted senders.
        let allowed: &[Teller] = match kind {
            K::Hello => &[],
            K::Voters | K::Decisions => &Teller::ALL,
            K::QueryRequest | K::SelfCheckReport | K::DecisionAck => &[Ranked, Unranked, VoterOnly],
            K::Beat
            | K::Claims
            | K::Distribution
            | K::Associate
            | K::Release
            | K::Yield
            | K::YieldRefused
            | K::Table
            | K::TableReplica
            | K::TakebackRequest => &[Ranked],
            K::BeatAck | K::Votes => &[Ranked, VoterOnly, VotingTarget],
            K::QueryReply | K::Listeners | K::Connections | K::Load | K::LinkAddress => &[VotingTarget, Target],
        };
        for from in Teller::ALL {
            let said = from.says(&sample(*kind, &from.node()), &Receiver::default());
            assert_eq!(said.is_ok(), allowed.contains(&from), "{kind} of {from:?}: {said:?}");
        }
    }
}

#[test]
fn a_target_tells_the_ethernet_address_of_one_station_or_none() {
    let says = |mac| Teller::Target.says(&Message::LinkAddress(LinkAddress { mac }), &Receiver::default());
    assert_eq!(says(None), Ok(()));
    for nobody in [Mac::BROADCAST, Mac([0; 6]), Mac([1, 0, 0x5e, 0, 0, 1])] {
        assert_eq!(says(Some(nobody)), Err(Denial::NoStation), "{nobody}");
    }
}

#[test]
fn who_does_not_know_the_ranks_of_a_vipa_believes_every_router() {
    let other: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));
    let mut claim = Claim { vipa: other, epoch: Epoch(6), ballot: Ballot::Trial };
    let known = Receiver::default();
    let claims = |claim: &Claim| Message::Claims(Claims { claims: vec![claim.clone()] });
    assert_eq!(Teller::Unranked.says(&claims(&claim), &known), Ok(()));
    claim.vipa = VIPA;
    assert_eq!(Teller::Unranked.says(&claims(&claim), &known), Err(Denial::NoRank { vipa: VIPA }));
}

#[test]
fn an_address_that_no_host_can_have_is_no_vipa() {
    for vipa in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1"] {
        let vipa: IpAddr = vipa.parse().unwrap();
        let release = Message::Release(Release { vipa, epoch: Epoch(6) });
        assert_eq!(Teller::Ranked.says(&release, &Receiver::default()), Err(Denial::NoVipa { vipa }));
    }
}

#[test]
fn an_epoch_comes_one_after_the_other_or_where_the_next_voters_begin() {
    let beat = |epoch: u64| Message::Beat(beat(Epoch(epoch), 1));
    let known = |version: u32, highest: u64| {
        let names = ["r1", "r2", "t1"].map(name).to_vec();
        Receiver { voters: Voters::new(version, names), highest: Epoch(highest) }
    };
    let takes = |known: &Receiver, epoch: u64| Teller::Ranked.says(&beat(epoch), known).is_ok();
    let billion = 1_000_000_000;
    let first = known(1, 5);
    for (epoch, is_taken) in [
        (0, true),
        (6, true),
        (5 + EPOCH_JUMP, true),
        (6 + EPOCH_JUMP, false),
        (billion, true),
        (billion + EPOCH_JUMP + 1, false),
        (2 * billion, false),
        (u64::MAX, false),
    ] {
        assert_eq!(takes(&first, epoch), is_taken, "{epoch}");
    }
    // A receiver without any state accepts what the voters can have granted, and nothing beyond.
    let new = known(1, 0);
    assert!(takes(&new, billion - 1) && takes(&new, 2 * billion - 1) && !takes(&new, 2 * billion));
    let unknown = Receiver { voters: Voters::default(), highest: Epoch::NONE };
    assert!(takes(&unknown, 7 * billion) && !takes(&unknown, u64::MAX));
    // Highest epochs in refusals and acknowledgements are bounded alike.
    let refusal = refuse(Refusal::Granted, Epoch(u64::MAX));
    assert_eq!(Teller::VotingTarget.says(&refusal, &first), Err(Denial::Epoch { vipa: VIPA, epoch: Epoch(u64::MAX) }));
    let superseded = vec![Superseded { vipa: VIPA, epoch: Epoch(u64::MAX), holder: name("r1") }];
    let ack = Message::BeatAck(BeatAck { sequence: 1, superseded });
    assert!(matches!(Teller::VotingTarget.says(&ack, &first), Err(Denial::Epoch { .. })));
}

#[test]
fn stamps_sequences_and_lives_are_bounded() {
    let known = Receiver::default();
    let decided = |count| {
        let stamp = Stamp { count, by: name("r1") };
        let matter = Matter::Target { target: TARGET };
        Message::Decisions(Decisions {
            decisions: vec![Decision { matter, ruling: Ruling::Withheld, stamp, given: None }],
        })
    };
    assert_eq!(Teller::Ranked.says(&decided(100 + STAMP_JUMP), &known), Ok(()));
    assert_eq!(Teller::Ranked.says(&decided(u64::MAX), &known), Err(Denial::Stamp { count: u64::MAX }));
    let late = Message::Beat(beat(Epoch(6), u64::MAX));
    assert_eq!(Teller::Ranked.says(&late, &known), Err(Denial::Sequence { sequence: u64::MAX }));
    let other = Incarnation(LIFE.0 + 1);
    assert_eq!(Teller::Target.says(&tail(other, 2, 3), &known), Err(Denial::OtherLife { incarnation: other }));
    for (after, upto) in [(2, 4), (2, 2), (u64::MAX, 0), (LAST_SEQUENCE, LAST_SEQUENCE + 1)] {
        let said = Teller::Target.says(&tail(LIFE, after, upto), &known);
        assert_eq!(said, Err(Denial::Sequence { sequence: upto }), "{after} to {upto}");
    }
}

#[test]
fn without_a_quorum_a_target_may_tell_an_owner_that_it_is_of_the_past() {
    let known = Receiver { voters: Voters::new(1, vec![]), highest: KNOWN };
    assert_eq!(Teller::Target.says(&refuse(Refusal::Superseded, Epoch(6)), &known), Ok(()));
    assert_eq!(Teller::Target.says(&refuse(Refusal::Granted, Epoch(6)), &known), Err(Denial::NotAVoter));
}

#[test]
fn what_is_denied_is_counted_each_time_and_noted_once_a_minute() {
    let mut denied = DenialCounts::default();
    let now = Moment(1_000_000_000);
    assert!(denied.count(now, &name("t9"), MessageKind::Beat));
    assert!(!denied.count(now, &name("t9"), MessageKind::Beat));
    assert!(denied.count(now, &name("t9"), MessageKind::Claims) && denied.count(now, &name("t8"), MessageKind::Beat));
    assert!(denied.count(now + QUIET, &name("t9"), MessageKind::Beat));
    assert_eq!((denied.total(), denied.of(&name("t9")), denied.of(&name("t8"))), (5, 4, 1));
    for node in 0..2 * MAX_NOTED {
        denied.count(now, &name(&format!("n{node}")), MessageKind::Beat);
    }
    assert!(denied.noted.len() <= MAX_NOTED && denied.by_node.len() <= MAX_NOTED);
}

#[test]
fn a_mirrors_round_and_what_the_disk_says_are_bounded() {
    let receiver = Receiver::default();
    let round = |number| {
        let round =
            vipa_protocol::Round { number, part: Part::Only, whole: true, span_ms: 0, opened: vec![], closed: vec![] };
        Message::TableReplica(TableReplica { vipa: VIPA, epoch: Epoch(6), copied: Copied::Round(round) })
    };
    let sender = Sender { node: &name("r1"), role: &Role::Router, incarnation: LIFE };
    assert_eq!(may_send(&sender, &round(LAST_SEQUENCE), &receiver), Ok(()));
    let sequence = LAST_SEQUENCE + 1;
    assert_eq!(may_send(&sender, &round(sequence), &receiver), Err(Denial::Sequence { sequence }));

    let vote = |epoch| StoredVote { vipa: VIPA, epoch: Epoch(epoch), holder: name("r1"), incarnation: LIFE };
    assert_eq!(check_stored_vote(&vote(LAST_SEQUENCE)), Ok(()));
    assert!(check_stored_vote(&vote(u64::MAX)).is_err());
    let decision = |count| Decision {
        matter: Matter::Target { target: TARGET },
        ruling: Ruling::Withheld,
        stamp: Stamp { count, by: name("r1") },
        given: None,
    };
    assert_eq!(check_stored_decision(&decision(LAST_SEQUENCE)), Ok(()));
    assert!(check_stored_decision(&decision(u64::MAX)).is_err());
}
