//! Which Ethernet address each target and gateway has, found and kept by ARP (RFC 826).
//!
//! ```text
//!   want ──► unresolved ──answer──► resolved ──REFRESH──► asked again, the old address still used
//!               │  ▲                                          │
//!               └──┘ asked every RETRY                        └─answer─► resolved
//! ```
//! An address once learned is used until another replaces it: a neighbour that went silent is no reason to drop
//! packets early; that a target died is its agent's and its link's news, not ARP's.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use vipa_model::{Mac, Moment, PortId};

/// First retries of an unresolved neighbour, then every `RETRY_SLOW`.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_SLOW: Duration = Duration::from_secs(1);
/// Requests sent at the first pace.
const QUICK_RETRIES: u32 = 10;
/// A resolved neighbour is asked again after this long, so that a changed address is noticed.
const REFRESH: Duration = Duration::from_secs(20);

/// The neighbours this router wants to reach; limited by what the configuration and the agents name.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    entries: BTreeMap<Ipv4Addr, Neighbour>,
}

#[derive(Debug)]
struct Neighbour {
    port: PortId,
    mac: Option<Mac>,
    ask_at: Moment,
    /// Requests since the last answer.
    asked: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Somebody we do not forward to, or nothing new.
    Nothing,
    /// The workers must be told.
    Changed,
}

impl Neighbours {
    /// Sets whom to keep resolved. What is known of those that stay is kept, the others are forgotten.
    pub(crate) fn want(&mut self, wanted: impl IntoIterator<Item = (Ipv4Addr, PortId)>, now: Moment) {
        let mut old = std::mem::take(&mut self.entries);
        for (address, port) in wanted {
            let kept = old.remove(&address).filter(|entry| entry.port == port);
            self.entries.insert(address, kept.unwrap_or(Neighbour { port, mac: None, ask_at: now, asked: 0 }));
        }
    }

    pub(crate) fn mac(&self, address: Ipv4Addr) -> Option<Mac> {
        self.entries.get(&address)?.mac
    }

    pub(crate) fn learn(&mut self, port: PortId, address: Ipv4Addr, mac: Mac, now: Moment) -> Learned {
        let Some(entry) = self.entries.get_mut(&address).filter(|entry| entry.port == port) else {
            return Learned::Nothing;
        };
        entry.asked = 0;
        entry.ask_at = now + REFRESH;
        if entry.mac.replace(mac) == Some(mac) { Learned::Nothing } else { Learned::Changed }
    }

    /// Names every neighbour to send a request for now, and notes that it was sent.
    pub(crate) fn ask_due(&mut self, now: Moment, mut ask: impl FnMut(PortId, Ipv4Addr)) {
        for (&address, entry) in &mut self.entries {
            if entry.ask_at <= now {
                ask(entry.port, address);
                entry.asked = entry.asked.saturating_add(1);
                entry.ask_at = now + if entry.asked <= QUICK_RETRIES { RETRY } else { RETRY_SLOW };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 21);
    const PORT: PortId = PortId(0);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn asked(neighbours: &mut Neighbours, now: Moment) -> Vec<Ipv4Addr> {
        let mut list = Vec::new();
        neighbours.ask_due(now, |_, address| list.push(address));
        list
    }

    #[test]
    fn an_unresolved_neighbour_is_asked_for_at_once_then_again_and_then_slowly() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        let mut now = Moment::ZERO;
        let mut sent = 0;
        while now < Moment::ZERO + Duration::from_secs(10) {
            sent += asked(&mut neighbours, now).len();
            now = now + Duration::from_millis(10);
        }
        assert_eq!(neighbours.mac(TARGET), None);
        assert!((18..=21).contains(&sent), "10 quick requests, then one a second: {sent}");
    }

    #[test]
    fn an_answer_is_kept_and_asked_again_only_after_a_while() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, Moment::ZERO), Learned::Changed);
        assert_eq!(neighbours.learn(PORT, TARGET, MAC, Moment::ZERO), Learned::Nothing);
        assert!(asked(&mut neighbours, Moment::ZERO + Duration::from_secs(19)).is_empty());
        assert_eq!(asked(&mut neighbours, Moment::ZERO + REFRESH), [TARGET]);
        assert_eq!(neighbours.mac(TARGET), Some(MAC), "still used while asked again");
    }

    #[test]
    fn strangers_and_answers_on_another_port_teach_nothing() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        assert_eq!(neighbours.learn(PORT, Ipv4Addr::new(198, 51, 100, 99), MAC, Moment::ZERO), Learned::Nothing);
        assert_eq!(neighbours.learn(PortId(1), TARGET, MAC, Moment::ZERO), Learned::Nothing);
        assert_eq!(neighbours.mac(TARGET), None);
    }

    #[test]
    fn what_is_wanted_again_keeps_its_address() {
        let mut neighbours = Neighbours::default();
        neighbours.want([(TARGET, PORT)], Moment::ZERO);
        neighbours.learn(PORT, TARGET, MAC, Moment::ZERO);
        neighbours.want([(TARGET, PORT), (Ipv4Addr::new(198, 51, 100, 22), PORT)], Moment::ZERO);
        assert_eq!(neighbours.mac(TARGET), Some(MAC));
        neighbours.want([], Moment::ZERO);
        assert_eq!(neighbours.mac(TARGET), None);
    }
}
