//! How long what an earlier agent left on this host stays without being asked for.
//!
//! ```text
//!   started ──► Keep ──all routers linked for SETTLED, or one for PATIENCE──► Release
//! ```
//! An agent that stops leaves the VIPAs and tunnels as they are. Its successor learns little by little, router by router, what is
//! wanted. What nobody has asked for by the end goes. The time runs only while routers are linked: without a link nobody can say what
//! is wanted, and connections may live.

use std::time::Duration;

use vipa_model::Moment;

/// Time for routers that are linked to tell everything they want.
const SETTLED: Duration = Duration::from_secs(10);
/// A router that stays away for so long is no longer waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// What becomes of what an earlier agent left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Inherited {
    #[default]
    Keep,
    Release,
}

/// Which of the configured routers are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linked {
    None,
    Some,
    All,
}

#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    /// Since when without a break.
    some_since: Option<Moment>,
    all_since: Option<Moment>,
    released: bool,
}

impl Inheritance {
    /// Whether the time is over at this moment, and was not before.
    pub(crate) fn ends(&mut self, now: Moment, linked: Linked) -> bool {
        let (some, all) = match linked {
            Linked::None => (false, false),
            Linked::Some => (true, false),
            Linked::All => (true, true),
        };
        self.some_since = if some { self.some_since.or(Some(now)) } else { None };
        self.all_since = if all { self.all_since.or(Some(now)) } else { None };
        let for_long = |since: Option<Moment>, time| since.is_some_and(|since| now.since(since) >= time);
        let over = for_long(self.all_since, SETTLED) || for_long(self.some_since, PATIENCE);
        let ends = over && !self.released;
        self.released |= over;
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second at which the time ends, asked every second for as long as `linked` says something.
    fn end(linked: impl IntoIterator<Item = Linked>) -> Option<u64> {
        let mut inheritance = Inheritance::default();
        let mut ends = Vec::new();
        for (second, linked) in (0..).zip(linked) {
            if inheritance.ends(Moment(second * 1_000_000_000), linked) {
                ends.push(second);
            }
        }
        assert!(ends.len() <= 1, "it ends once: {ends:?}");
        ends.first().copied()
    }

    #[test]
    fn it_ends_once_when_all_routers_have_been_linked_for_long_enough() {
        assert_eq!(end([Linked::All; 100]), Some(10));
        assert_eq!(end([[Linked::None; 50], [Linked::All; 50]].concat()), Some(60));
        // A break begins the time anew.
        assert_eq!(end([&[Linked::All; 9][..], &[Linked::Some], &[Linked::All; 20]].concat()), Some(20));
    }

    #[test]
    fn a_router_that_stays_away_is_waited_for_and_not_for_ever() {
        assert_eq!(end([Linked::Some; 1_000]), Some(300));
    }

    #[test]
    fn without_a_link_it_does_not_end() {
        assert_eq!(end([Linked::None; 10_000]), None);
        // Nor after a link that was lost before anybody could have told everything.
        assert_eq!(end([&[Linked::All; 5][..], &[Linked::None; 10_000]].concat()), None);
    }
}
