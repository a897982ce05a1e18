use std::net::IpAddr;

use super::*;

const KEY: ClusterKey = ClusterKey::new([3; 16]);

fn candidates(weights: &[u16]) -> Vec<Candidate> {
    let candidate = |(n, &weight): (usize, &u16)| Candidate {
        address: IpAddr::from([198, 51, 100, n as u8]),
        weight,
        target: TargetId(n as u16),
    };
    weights.iter().enumerate().map(candidate).collect()
}

fn turns(picker: &Picker, count: u64) -> Vec<u16> {
    (0..count).map(|turn| picker.pick(0, || turn).expect("somebody").0).collect()
}

#[test]
fn nobody_is_picked_when_nobody_may_be() {
    for balance in [Balance::Maglev, Balance::RoundRobin] {
        for nobody in [&candidates(&[])[..], &candidates(&[0, 0])] {
            let picker = Picker::build(&KEY, balance, nobody);
            assert!(matches!(picker, Picker::None));
            assert_eq!(picker.pick(1, || 2), None);
        }
    }
}

#[test]
fn turns_ignore_the_hash() {
    let picker = Picker::build(&KEY, Balance::RoundRobin, &candidates(&[1, 1, 1]));
    assert_eq!(turns(&picker, 7), [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(picker.pick(12_345, || 1), picker.pick(0, || 1));
}

#[test]
fn turns_go_by_weight_and_are_spread() {
    let picker = Picker::build(&KEY, Balance::RoundRobin, &candidates(&[4, 0, 2]));
    assert_eq!(turns(&picker, 6), [0, 2, 0, 0, 2, 0]);
}

#[test]
fn some_have_the_first_turns_once() {
    let picker = Picker::by_turns([1, 1, 0].map(TargetId).to_vec(), &candidates(&[1, 1]));
    assert_eq!(turns(&picker, 8), [1, 1, 0, 0, 1, 0, 1, 0]);
    assert!(matches!(Picker::by_turns(vec![TargetId(0)], &[]), Picker::None));
}

#[test]
fn a_round_has_a_limit_and_everybody_is_in_it() {
    let picker = Picker::build(&KEY, Balance::RoundRobin, &candidates(&[65_535, 65_534, 1]));
    let Picker::RoundRobin(turns) = &picker else { panic!("{picker:?}") };
    assert!(turns.round.len() <= LONGEST_ROUND as usize + 3);
    assert_eq!(turns.round.iter().filter(|target| target.0 == 2).count(), 1);
}

#[test]
fn maglev_goes_by_the_hash_and_takes_no_turn() {
    let picker = Picker::build(&KEY, Balance::Maglev, &candidates(&[1, 1, 1]));
    let Picker::Maglev(maglev) = &picker else { panic!("{picker:?}") };
    for hash in (0..100_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        assert_eq!(picker.pick(hash, || unreachable!("no turn is taken")), Some(maglev.pick(hash)));
    }
}

#[test]
fn those_with_weight_serve_and_nobody_else() {
    for balance in [Balance::Maglev, Balance::RoundRobin] {
        let picker = Picker::build(&KEY, balance, &candidates(&[1, 0, 2]));
        assert_eq!([0, 1, 2, 3].map(|id| picker.serves(TargetId(id))), [true, false, true, false]);
        assert!(!Picker::None.serves(TargetId(0)));
    }
}

#[test]
fn by_hash_alone_all_routers_choose_alike_and_by_weight() {
    let first = vec![TargetId(2)];
    for (here, there) in [
        (Picker::by_turns(first, &candidates(&[4, 0, 2])), Picker::by_turns(Vec::new(), &candidates(&[4, 0, 2]))),
        (
            Picker::build(&KEY, Balance::Maglev, &candidates(&[4, 0, 2])),
            Picker::build(&KEY, Balance::Maglev, &candidates(&[4, 0, 2])),
        ),
    ] {
        let mut counts = [0; 3];
        for hash in (0..6_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let target = here.pick_by_hash(hash).unwrap();
            assert_eq!(there.pick_by_hash(hash), Some(target));
            counts[usize::from(target.0)] += 1;
        }
        assert!((3_800..4_200).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
    }
    assert_eq!(Picker::None.pick_by_hash(7), None);
}
