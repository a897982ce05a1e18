//! Whether frames pass at a port: somebody who was asked there has answered.
//!
//! ```text
//!   not answered ──a neighbour's word──► answered ──ASK_AFTER without a word──► asked every ASK_AFTER
//!        ▲                                                                          │ SILENT_AFTER without a word
//!        └───────────────── the link or the device is lost ─────────────────────────┴──► not answered
//! ```
//! A link that is up may lead nowhere: to a switch that knows nothing of its network, or to the wrong one. The driver does not
//! notice. Nothing is said of a port on whose network this router has nobody to ask: no target and no gateway.

use std::{collections::BTreeSet, time::Duration};

use vipa_handoff::{PortRoute, next_neighbour};
use vipa_model::{Moment, PortId, config};

use crate::{
    control::{Control, send_frame},
    network::announcements,
};

/// Without a word of any neighbour on a port for so long some are asked, and then as often.
const ASK_AFTER: Duration = Duration::from_millis(500);
/// Neighbours asked at a time. Some may have died; by turns all are.
const ASKED: usize = 3;
/// Four rounds of questions without an answer.
const SILENT_AFTER: Duration = Duration::from_millis(2_500);

/// What is known of one port.
#[derive(Clone, Copy, Debug, Default)]
struct Liveness {
    /// The latest word of somebody whom this router asks there, since the port's last fault.
    heard: Option<Moment>,
    asked: Moment,
    /// Whose turn it is.
    turn: usize,
}

/// By `PortId`.
#[derive(Debug)]
pub(crate) struct PortLiveness(Vec<Liveness>);

impl PortLiveness {
    pub(crate) fn new(ports: usize) -> Self {
        Self(vec![Liveness::default(); ports])
    }

    pub(crate) fn observe(&mut self, port: PortId, now: Moment) {
        if let Some(port) = self.0.get_mut(usize::from(port.0)) {
            port.heard = Some(now);
        }
    }

    /// The port has a fault. What was heard before it says nothing of later.
    pub(crate) fn lose(&mut self, port: usize) {
        if let Some(port) = self.0.get_mut(port) {
            port.heard = None;
        }
    }

    pub(crate) fn is_answered(&self, port: usize, now: Moment) -> bool {
        let heard = self.0.get(port).and_then(|port| port.heard);
        heard.is_some_and(|heard| now.since(heard) < SILENT_AFTER)
    }

    /// The ports at which to ask now, and whose turn it is there.
    fn due(&mut self, now: Moment) -> Vec<(usize, usize)> {
        let mut due = Vec::new();
        for (index, port) in self.0.iter_mut().enumerate() {
            let is_quiet = port.heard.is_none_or(|heard| now.since(heard) >= ASK_AFTER);
            if is_quiet && now.since(port.asked) >= ASK_AFTER {
                due.push((index, port.turn));
                port.asked = now;
                port.turn = port.turn.wrapping_add(ASKED);
            }
        }
        due
    }
}

/// The ports on whose network the configuration names a target, or a gateway to one.
pub(crate) fn ports_to_answer(vipas: &[config::Vipa], ports: &[PortRoute]) -> BTreeSet<PortId> {
    let services = vipas.iter().flat_map(|vipa| vipa.services.iter().flatten());
    let candidates = services.flat_map(|service| service.candidates.iter().copied());
    let foreign = candidates.filter(|candidate| !ports.iter().any(|port| port.has(*candidate)));
    foreign.filter_map(|candidate| Some(next_neighbour(ports, candidate)?.0)).collect()
}

impl Control {
    /// Asks neighbours at ports that nothing has been heard of for a while.
    pub(crate) fn ask_at_quiet_ports(&mut self, now: Moment) {
        for (index, turn) in self.port_liveness.due(now) {
            let Some((id, port)) = u16::try_from(index).ok().map(PortId).zip(self.routing.ports.get(index)) else {
                continue;
            };
            for address in self.routing.neighbours.some_at(id, turn, ASKED) {
                send_frame(&self.channel, &self.counts, (id, port), &announcements::question(port, address));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(5_000_000_000) + Duration::from_millis(ms)
    }

    #[test]
    fn a_port_is_answered_while_somebody_speaks_there_and_asked_when_nobody_does() {
        let mut ports = PortLiveness::new(2);
        assert!(!ports.is_answered(0, at(0)));
        ports.observe(PortId(0), at(0));
        assert!(ports.is_answered(0, at(2_400)) && !ports.is_answered(1, at(0)));
        assert!(!ports.is_answered(0, at(2_500)));
        let due: Vec<_> = (0..1_500).step_by(5).flat_map(|ms| ports.due(at(ms))).collect();
        assert_eq!(due, [(1, 0), (0, 0), (1, 3), (0, 3), (1, 6)]);
    }

    #[test]
    fn what_was_heard_before_a_fault_says_nothing_of_later() {
        let mut ports = PortLiveness::new(1);
        ports.observe(PortId(0), at(0));
        ports.lose(0);
        assert!(!ports.is_answered(0, at(1)));
        ports.observe(PortId(0), at(2));
        assert!(ports.is_answered(0, at(3)));
    }
}
