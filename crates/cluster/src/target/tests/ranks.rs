//! Which routers a target accepts about a VIPA.

use vipa_model::Rank;
use vipa_protocol::{Beat, BeatAck, Owned, Superseded};

use super::*;

const OTHER_VIPA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 11));

impl Bench {
    /// Linked to r1 and r2, which rank each other, and to r3, which they do not.
    fn ranked() -> Self {
        let mut bench = Self::linked();
        bench.link("r3");
        bench.rank("r1", Standing::Owner, 5, &["r1", "r2"]);
        bench.rank("r2", Standing::Backup, 5, &["r1", "r2"]);
        bench
    }

    /// A router distributes the VIPA with these ranks.
    fn rank(&mut self, router: &str, sender: Standing, epoch: u64, ranked: &[&str]) -> Vec<Output> {
        let ranks = ranked.iter().map(|router| (name(router), Rank(100))).collect();
        let (epoch, services, paths) = (Epoch(epoch), Vec::new(), Vec::new());
        self.receive(router, Message::Distribution(Distribution { vipa: VIPA, epoch, sender, ranks, services, paths }))
    }

    fn beat(&mut self, router: &str, vipas: &[IpAddr], epoch: u64) -> Vec<Output> {
        let owned = |vipa: &IpAddr| Owned { vipa: *vipa, epoch: Epoch(epoch), yielding_to: None };
        self.receive(router, Message::Beat(Beat { sequence: 1, owned: vipas.iter().map(owned).collect() }))
    }

    fn epoch(&self) -> Epoch {
        self.0.summaries()[0].epoch
    }

    fn denied_after(&mut self, act: impl FnOnce(&mut Self) -> Vec<Output>) -> (Vec<Output>, u64) {
        let before = self.0.messages_denied();
        let out = act(self);
        (out, self.0.messages_denied() - before)
    }
}

fn acknowledged(to: &str, barred: &[(IpAddr, u64)]) -> Vec<Output> {
    let by = |(vipa, epoch): &(IpAddr, u64)| Superseded { vipa: *vipa, epoch: Epoch(*epoch), holder: name(to) };
    vec![send(to, Message::BeatAck(BeatAck { sequence: 1, superseded: barred.iter().map(by).collect() }))]
}

#[test]
fn a_router_to_which_no_other_gives_a_rank_owns_nothing_here() {
    let mut bench = Bench::ranked();
    assert_eq!(bench.denied_after(|bench| bench.rank("r3", Standing::Owner, 9, &["r3"])), (vec![], 1));
    assert_eq!(bench.denied_after(|bench| bench.associate("r3", Standing::Owner, 9, None)), (vec![], 1));
    let claim = Claim { vipa: VIPA, epoch: Epoch(9), ballot: Ballot::Trial };
    let claims = Message::Claims(Claims { claims: vec![claim] });
    assert_eq!(bench.denied_after(|bench| bench.receive("r3", claims)), (vec![], 1));
    assert_eq!(bench.epoch(), Epoch(5));
}

#[test]
fn of_a_beat_the_vipas_count_for_which_its_sender_has_a_rank() {
    let mut bench = Bench::ranked();
    let (out, denied) = bench.denied_after(|bench| bench.beat("r3", &[VIPA, OTHER_VIPA], 9));
    assert_eq!((out, denied), (acknowledged("r3", &[(VIPA, 9)]), 1));
    assert_eq!(bench.beat("r1", &[VIPA], 5), acknowledged("r1", &[]));
}

#[test]
fn a_router_without_a_rank_cannot_deny_another_its_own() {
    let mut bench = Bench::ranked();
    bench.rank("r3", Standing::Backup, 5, &["r3"]);
    assert_eq!(bench.denied_after(|bench| bench.beat("r1", &[VIPA], 5)), (acknowledged("r1", &[]), 0));
    assert_eq!(bench.denied_after(|bench| bench.beat("r2", &[VIPA], 6)), (acknowledged("r2", &[]), 0));
}

#[test]
fn a_single_routers_word_does_not_count_against_another() {
    let mut bench = Bench::linked();
    bench.rank("r1", Standing::Backup, 5, &["r1"]);
    assert_eq!(bench.denied_after(|bench| bench.beat("r2", &[VIPA], 5)), (acknowledged("r2", &[]), 0));
}

#[test]
fn a_rank_counts_as_soon_as_the_others_have_read_of_it_and_until_its_owner_is_another() {
    let mut bench = Bench::ranked();
    // A backup is answered whatever its rank: what it receives concerns no other node.
    bench.rank("r3", Standing::Backup, 5, &["r1", "r2", "r3"]);
    assert_eq!(bench.beat("r3", &[VIPA], 6), acknowledged("r3", &[(VIPA, 6)]));
    bench.rank("r2", Standing::Backup, 5, &["r1", "r2", "r3"]);
    assert_eq!(bench.beat("r3", &[VIPA], 6), acknowledged("r3", &[]));
    bench.rank("r3", Standing::Owner, 6, &["r1", "r2", "r3"]);
    // Its rank is removed, first at the other routers.
    bench.rank("r1", Standing::Backup, 6, &["r1", "r2"]);
    bench.rank("r2", Standing::Backup, 6, &["r1", "r2"]);
    assert_eq!(bench.beat("r3", &[VIPA], 6), acknowledged("r3", &[]));
    bench.rank("r1", Standing::Owner, 7, &["r1", "r2"]);
    assert_eq!(bench.beat("r3", &[VIPA], 8), acknowledged("r3", &[(VIPA, 8)]));
}

#[test]
fn what_a_router_has_said_as_the_owner_is_taken_back_when_the_others_turn_out_to_give_it_no_rank() {
    let mut bench = Bench::linked();
    bench.link("r3");
    bench.rank("r2", Standing::Backup, 2, &["r1", "r2"]);
    bench.associate("r2", Standing::Backup, 2, None);
    bench.associate("r3", Standing::Owner, 4, None);
    assert_eq!(bench.epoch(), Epoch(4));
    bench.rank("r1", Standing::Owner, 2, &["r1", "r2"]);
    assert_eq!(bench.epoch(), Epoch(2));
    bench.associate("r1", Standing::Owner, 2, None);
    let (owner, backup) =
        ((name("r1"), Standing::Owner, Epoch(2)), |router, epoch| (name(router), Standing::Backup, epoch));
    assert_eq!(bench.0.associations()[&VIPA], [owner, backup("r2", Epoch(2)), backup("r3", Epoch(4))]);
}
