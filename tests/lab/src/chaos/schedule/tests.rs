use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// The nodes that do not count as unaffected at that moment.
fn hindered(all: &[ScheduledFault], moment: Duration) -> Vec<&str> {
    all.iter().filter(|one| one.from <= moment && one.until >= moment).filter_map(|one| one.what.hinders()).collect()
}

#[test]
fn one_seed_is_one_schedule() {
    assert_eq!(schedule(7, HOUR), schedule(7, HOUR));
    assert_ne!(schedule(7, HOUR), schedule(8, HOUR));
}

#[test]
fn a_longer_run_begins_like_a_shorter_one() {
    let short = schedule(7, Duration::from_secs(120));
    assert!(short.len() > 20, "{} in two minutes", short.len());
    assert_eq!(schedule(7, HOUR)[..short.len()], short);
}

#[test]
fn a_router_and_a_majority_of_the_voters_stay_whole_whatever_happens() {
    for seed in 0..50 {
        let all = schedule(seed, HOUR);
        for one in &all {
            assert!(one.from <= one.until && one.until <= HOUR);
            let nodes = hindered(&all, one.from);
            let mut once = nodes.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), nodes.len(), "one fault a node: {nodes:?}");
            assert!(nodes.iter().filter(|node| node.starts_with('r')).count() < usize::from(ROUTERS), "{nodes:?}");
            assert!(nodes.iter().filter(|node| VOTERS.contains(node)).count() * 2 < VOTERS.len(), "{nodes:?}");
        }
    }
}

#[test]
fn everything_that_can_happen_happens() {
    let all = schedule(1, HOUR);
    let mut kinds = Vec::new();
    for one in &all {
        let kind = std::mem::discriminant(&one.what);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    assert_eq!(kinds.len(), 15, "{all:?}");
}
