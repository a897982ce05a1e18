use proptest::prelude::*;

use super::*;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn decision(matter: u8, withheld: bool, count: u64, by: u8) -> Decision {
    let target = IpAddr::from([198, 51, 100, matter]);
    let ruling = if withheld { Ruling::Withheld } else { Ruling::AsConfigured };
    Decision {
        matter: Matter::Target { target },
        ruling,
        stamp: Stamp { count, by: name(&format!("r{by}")) },
        given: None,
    }
}

#[test]
fn the_later_decision_counts_whichever_comes_first() {
    let (quiesce, resume) = (decision(1, true, 1, 1), decision(1, false, 2, 2));
    let mut decision_log = DecisionLog::new(vec![resume.clone()]);
    assert!(!decision_log.merge(quiesce.clone()));
    assert_eq!(decision_log.ruling(&quiesce.matter), Ruling::AsConfigured);
    let mut decision_log = DecisionLog::new(vec![quiesce.clone()]);
    assert!(decision_log.merge(resume));
    assert_eq!(decision_log.ruling(&quiesce.matter), Ruling::AsConfigured);
}

#[test]
fn a_full_ledger_forgets_what_is_as_configured_and_nothing_else() {
    let matter = |n: usize| Matter::Membership { node: name(&format!("n{n}")) };
    let rule = |n: usize, ruling| Decision {
        matter: matter(n),
        ruling,
        stamp: Stamp { count: 1, by: name("r1") },
        given: None,
    };
    let mut decision_log = DecisionLog::new((0..MOST_MATTERS).map(|n| rule(n, Ruling::Withheld)).collect());
    assert!(!decision_log.has_room(&matter(MOST_MATTERS)) && decision_log.has_room(&matter(1)));
    assert!(!decision_log.merge(rule(MOST_MATTERS, Ruling::Withheld)));
    let resumed = decision_log.propose(matter(1), Ruling::AsConfigured, &name("r1"), None);
    assert!(decision_log.merge(resumed) && decision_log.has_room(&matter(MOST_MATTERS)));
    assert!(decision_log.merge(rule(MOST_MATTERS, Ruling::Withheld)));
    assert_eq!(decision_log.all().len(), MOST_MATTERS);
}

proptest! {
    #[test]
    fn all_come_to_the_same_in_whichever_order_they_hear(
        made in prop::collection::vec((0_u8..4, any::<bool>(), 0_u64..6, 0_u8..3), 0..24),
        seed in any::<u64>(),
    ) {
        // One stamp, one decision.
        let mut decisions: Vec<Decision> = Vec::new();
        for (matter, withheld, count, by) in made {
            let decision = decision(matter, withheld, count, by);
            if !decisions.iter().any(|known| known.matter == decision.matter && known.stamp == decision.stamp) {
                decisions.push(decision);
            }
        }
        let one = DecisionLog::new(decisions.clone());
        let mut shuffled = decisions.clone();
        shuffled.sort_by_key(|decision| (decision.stamp.count.wrapping_mul(seed | 1), decision.matter.clone()));
        shuffled.extend(decisions);
        prop_assert_eq!(one.all(), DecisionLog::new(shuffled).all());
    }
}
