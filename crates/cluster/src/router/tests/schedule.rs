//! Cost of events when there are many VIPAs: counted in VIPAs looked at, because time proves nothing on a busy machine.

use std::{collections::VecDeque, net::Ipv4Addr, time::Duration};

use vipa_model::{Epoch, Rank};
use vipa_protocol::{Listeners, Owned};

use super::super::*;

/// Compares the router's deadline with the earliest of all VIPAs' own: it may be earlier, and is never later.
pub(super) fn assert_deadline(router: &Router) {
    let beat = router.owns_any().then(|| router.beats.due(&router.settings.timing));
    let overview = router.overview();
    let vipas = router.vipas.values().filter_map(|vipa| vipa.deadline(&overview));
    let walked = vipas.chain(beat).chain(router.orders.deadline()).min();
    let deadline = router.deadline();
    let is_kept = match walked {
        Some(walked) => deadline.is_some_and(|deadline| deadline <= walked),
        None => deadline.is_none(),
    };
    assert!(is_kept, "the schedule is not kept up: {deadline:?} and not {walked:?}");
}

fn address(vipa: u16) -> IpAddr {
    let [high, low] = vipa.to_be_bytes();
    Ipv4Addr::new(192, 0, high, low).into()
}

/// A router that is its own only voter, with a disk that writes at once.
struct Alone {
    router: Router,
    now: Moment,
    writes: u64,
}

impl Alone {
    fn new(vipas: u16) -> Self {
        let me: NodeName = "r1".parse().unwrap();
        let vipa = |number| VipaSettings {
            address: address(number),
            ranks: vec![(me.clone(), Rank(200))],
            services: Some(Vec::new()),
            activate: true,
            takeback: Takeback::Immediate,
            takeback_delay: Duration::ZERO,
            group: None,
        };
        let settings = Settings {
            cluster: "alone".into(),
            key: vipa_protocol::KeyDigest::default(),
            me: me.clone(),
            addresses: Vec::new(),
            incarnation: Incarnation(3),
            voters: vec![me.clone()].into(),
            timing: Timing::of_lease(Duration::from_millis(100)),
            vipas: (0..vipas).map(vipa).collect(),
        };
        let now = Moment(7_000_000);
        Self { router: Router::new(settings, Stored::default(), now), now, writes: 0 }
    }

    /// Feeds the event, and what results from it; returns the VIPAs looked at.
    fn feed(&mut self, event: Event) -> u64 {
        let before = self.router.looks();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut out = Outbox::new();
            self.router.handle(self.now, event, &mut out);
            assert_deadline(&self.router);
            if out.iter().any(|output| matches!(output, Output::StoreVote { .. })) {
                self.writes += 1;
                events.push_back(Event::VotesStored { token: self.router.votes_to_store().0 });
            }
        }
        self.router.looks() - before
    }

    fn run_for(&mut self, span: Duration) -> u64 {
        let (end, mut looks) = (self.now + span, 0);
        while let Some(deadline) = self.router.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            looks += self.feed(Event::Timeout);
        }
        self.now = end;
        looks
    }

    fn owned(&self) -> usize {
        self.router.schedule.owned().len()
    }
}

#[test]
fn a_cold_start_looks_at_each_vipa_as_often_with_a_thousand_as_with_ten() {
    let looks = [10_u16, 1_000].map(|vipas| {
        let mut alone = Alone::new(vipas);
        let looks = alone.run_for(Duration::from_secs(1));
        assert_eq!(alone.owned(), usize::from(vipas));
        assert!(alone.writes <= 2, "{} writes", alone.writes);
        looks.div_ceil(u64::from(vipas))
    });
    assert!(looks[1] <= looks[0], "of ten and of a thousand, for each: {looks:?}");
}

#[test]
fn an_event_about_one_vipa_is_no_look_at_the_others() {
    let mut alone = Alone::new(1_000);
    alone.run_for(Duration::from_secs(1));
    let hello = Hello {
        role: Role::Target { address: [198, 51, 100, 31].into() },
        node: "t1".parse().unwrap(),
        ..alone.router.hello()
    };
    let peer = hello.node.clone();
    alone.feed(Event::Connected { peer: peer.clone(), hello });
    let listeners = Listeners { vipa: address(7), listening: Vec::new(), paths: Vec::new() };
    assert_eq!(alone.feed(Event::Received { peer, message: Message::Listeners(listeners) }), 1);
    assert_eq!(alone.feed(Event::Timeout), 0, "nothing is due");
    assert_eq!(alone.feed(Event::VotesStored { token: 0 }), 0);
}

#[test]
fn a_vipa_taken_over_between_two_beats_is_told_without_the_others() {
    let mut beats = Beats::default();
    let timing = Timing::of_lease(Duration::from_millis(100));
    let (now, owned) = (Moment(1_000_000_000), BTreeSet::from([address(1), address(2), address(3)]));
    assert_eq!(beats.vipas(now, &owned, &timing), owned);
    let soon = now + timing.beat / 2;
    beats.hurry(address(2));
    beats.hurry(address(9));
    assert_eq!(beats.due(&timing), Moment::ZERO);
    assert_eq!(beats.vipas(soon, &owned, &timing), BTreeSet::from([address(2)]), "what is not owned is not told");
    assert_eq!(beats.due(&timing), now + timing.beat, "the regular beat comes when it would have come");
    assert_eq!(beats.vipas(now + timing.beat, &owned, &timing), owned);
}

#[test]
fn a_vipa_that_the_configuration_loses_leaves_nothing_behind() {
    let mut alone = Alone::new(3);
    alone.run_for(Duration::from_secs(1));
    let mut settings = alone.router.settings.clone();
    settings.vipas.remove(1);
    alone.feed(Event::Configured { settings: Box::new(settings) });
    alone.run_for(Duration::from_secs(10));
    assert_eq!((alone.owned(), alone.router.vipas.len()), (2, 2));
    assert!(alone.router.schedule.retired_at_rest().is_empty());
}

#[test]
fn a_beat_of_thousands_of_vipas_comes_in_datagrams_that_are_filled() {
    let owned = |count: u16| -> Vec<Owned> {
        let one = |vipa| Owned { vipa: address(vipa), epoch: Epoch(1 << 20), yielding_to: None };
        (0..count).map(one).collect()
    };
    let timing = Timing::of_lease(Duration::from_millis(100));
    for count in [1, 100, 4_096] {
        let owned = owned(count);
        let beats = Beats::default().next(Moment(1_000_000_000), &owned, &timing);
        let told: Vec<Owned> = beats.iter().flat_map(|beat| beat.owned.clone()).collect();
        assert_eq!(told, owned, "each once, in order");
        assert_eq!(beats.len(), usize::from(count).div_ceil(122), "of 5 + 3 + 1 bytes each");
        for beat in beats {
            let bytes = vipa_protocol::wire::encode(&Message::Beat(beat)).unwrap().len();
            assert!(bytes <= 1_150, "{bytes}");
        }
    }
    assert!(Beats::default().next(Moment(1), &[], &timing).is_empty());
}

#[test]
fn an_owner_at_rest_looks_at_each_vipa_once_a_beat_and_voter_and_at_its_lease() {
    let mut alone = Alone::new(100);
    alone.run_for(Duration::from_secs(1));
    let looks = alone.run_for(Duration::from_secs(1)) / 100;
    // Fifty beats: each looked at, and acknowledged by this router itself. A lease ends in 90 ms, and is found to have
    // been put off.
    assert!((100..=115).contains(&looks), "{looks}");
}
