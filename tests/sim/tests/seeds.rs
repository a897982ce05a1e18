//! A few seeds for every check; `make sim` runs many.

#[test]
fn the_first_seeds_hold() {
    for seed in 0..16 {
        if let Err(failure) = vipa_sim::simulate(seed, false) {
            panic!("seed {seed}: at {:.3} ms: {}", failure.at_ms, failure.what);
        }
    }
}

/// A router that had yielded kept what it had admitted and nobody had confirmed, although the next owner, its predecessor
/// then, told it where that connection really was.
#[test]
fn what_a_predecessor_tells_counts_more_than_what_an_earlier_ownership_left_unconfirmed() {
    if let Err(failure) = vipa_sim::simulate(50_565, false) {
        panic!("at {:.3} ms: {}", failure.at_ms, failure.what);
    }
}

#[test]
fn a_seed_decides_everything() {
    let run = |seed| vipa_sim::simulate(seed, true).map(|summary| (summary.steps, summary.connections)).ok();
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn what_a_router_of_many_owned_is_owned_again_soon_after_its_death() {
    let size = vipa_sim::scale::Size { routers: 8, targets: 24, vipas: 32 };
    assert_eq!(vipa_sim::scale::run(size).map(|bill| bill.moved), Ok(4));
}
