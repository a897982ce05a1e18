//! How long the setup of an earlier agent stays on this host without being asked for.
//!
//! ```text
//!   started ──► Keep ──all routers linked for SETTLED, or one for PATIENCE──► Release
//! ```
//! An agent that stops leaves the VIPAs and tunnels as they are. Its successor receives what is wanted one router after
//! the other. What no router has asked for by the end of this time is removed. The time runs only while routers are
//! linked: without a link nothing states what is wanted, and connections may live.

use std::time::Duration;

use vipa_model::Moment;

/// Time for linked routers to send everything that they want.
const SETTLED: Duration = Duration::from_secs(10);
/// Absence after which a router is no longer waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is done with the setup that an earlier agent left.
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
    /// Whether the time has just ended: at this moment, and not before.
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

    /// The second at which the time ends, asked every second for as long as `linked` has items.
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
        // A break begins the time again.
        assert_eq!(end([&[Linked::All; 9][..], &[Linked::Some], &[Linked::All; 20]].concat()), Some(20));
    }

    #[test]
    fn a_router_that_stays_away_is_waited_for_and_not_for_ever() {
        assert_eq!(end([Linked::Some; 1_000]), Some(300));
    }

    #[test]
    fn without_a_link_it_does_not_end() {
        assert_eq!(end([Linked::None; 10_000]), None);
        // Nor after a link that was lost before the router could have sent everything.
        assert_eq!(end([&[Linked::All; 5][..], &[Linked::None; 10_000]].concat()), None);
    }
}
