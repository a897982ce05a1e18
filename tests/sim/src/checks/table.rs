//! I7: a router's connection table equals what the targets hold.
//!
//! Whenever a router has read everything that a target has to report, its table has exactly the connections of that
//! target as held. A connection that no target has reported is removed within a time limit. A report takes no longer
//! than a time limit.

use std::time::Duration;

use vipa_flow::{FlowState, Tick};
use vipa_model::{Connection, ConnectionState};

use super::{MS, RECOVERY};
use crate::{
    gateway::{AGES, SELDOM_WRITTEN},
    world::{CALM, Time, VIPA, World, target_address},
};

/// Time in which ageing walks the table once, in ticks of a quarter of a second.
const AGEING: Duration = Duration::from_millis(1250);
/// How long an entry may be overdue: its target has become complete a moment ago, or the router did not run.
const OVERDUE: Time = 1500 * MS;
/// Longest time for which a message is under way once the network is calm.
const UNDER_WAY: Time = 50 * MS;
/// Time within which a report of another target's connection is settled.
const SETTLING: Time = 1250 * MS;

impl World {
    /// A report of this target has reached this router.
    pub(crate) fn check_report(&mut self, router: usize, target: usize) {
        if self.follows(router, target) {
            self.check_table(router, target);
        }
    }

    /// Called from time to time.
    pub(crate) fn check_tables(&mut self) {
        for router in 0..self.scene.routers {
            self.check_ages(router);
            for target in 0..self.scene.targets {
                self.check_report(router, target);
                if self.now > CALM + RECOVERY {
                    self.check_promptness(router, target);
                }
            }
        }
    }

    /// Whether this router has read everything that this target's kernel holds.
    fn follows(&self, router: usize, target: usize) -> bool {
        let Some(gateway) = &self.gateways[router] else { return false };
        let host = &self.hosts[target];
        let (held, logs) = (host.held(), host.brain.held());
        let Some(log) = logs.get(&VIPA) else { return false };
        if log.len() != held.len() || held.iter().any(|(connection, state)| log.get(connection) != Some(*state)) {
            return false;
        }
        let position = host.brain.summaries().into_iter().find(|summary| summary.vipa == VIPA);
        let address = target_address(target);
        let known = gateway.brain.vipa(VIPA).and_then(|vipa| {
            vipa.targets.into_iter().find(|status| status.address == address && status.complete)?.position
        });
        known.is_some() && known == position.map(|summary| summary.position)
    }

    /// The router has exactly the connections that the target holds as held there.
    pub(super) fn check_table(&mut self, router: usize, target: usize) {
        let Some(gateway) = &self.gateways[router] else { return };
        let held = self.hosts[target].held();
        let mut wrong = Vec::new();
        for (connection, _) in held.iter().filter(|(_, state)| **state != ConnectionState::HalfOpen) {
            let entry = gateway.knows(connection);
            // At another target it is disputed: that target's end is still to be reported, or it holds the connection
            // too.
            let fits = entry.is_some_and(
                |(holder, state)| if holder == target { state.is_held() } else { gateway.is_complete(holder) },
            );
            // A claim is settled within a time limit, which the check of promptness enforces.
            let waits = gateway.has_overruled(target, connection) || gateway.is_claimed(target, connection);
            if !fits && !waits {
                wrong.push(format!("t{} holds {connection:?}, the table has {entry:?}", target + 1));
            }
        }
        for (connection, _, state) in gateway.known().iter().filter(|(_, holder, _)| *holder == target) {
            if state.is_held() && !held.contains_key(connection) {
                wrong.push(format!("t{} does not hold {connection:?}, the table has {state:?}", target + 1));
            }
        }
        if let Some(first) = wrong.first() {
            let what = format!("I7: r{}: {first} (and {} more)", router + 1, wrong.len() - 1);
            self.fail(what);
        }
    }

    /// The router has every connection that the target has held for longer than a report takes as held there, whatever
    /// is under way.
    fn check_promptness(&mut self, router: usize, target: usize) {
        let Some(gateway) = &self.gateways[router] else { return };
        let before = self.now.saturating_sub(self.scene.longest_report() + UNDER_WAY + SETTLING);
        let host = &self.hosts[target];
        let missing = |connection: &Connection| {
            let entry = gateway.knows(connection);
            !gateway.has_overruled(target, connection)
                && entry.is_none_or(
                    |(holder, state)| if holder == target { !state.is_held() } else { !gateway.is_complete(holder) },
                )
        };
        let first = host.held_since(before).find(missing);
        if let Some(connection) = first {
            let entry = gateway.knows(&connection);
            self.fail(format!(
                "I7: r{}: t{} has held {connection:?} for longer than a report takes, the table has {entry:?}",
                router + 1,
                target + 1
            ));
        }
    }

    /// A connection that its target has not reported is removed within its limit.
    fn check_ages(&mut self, router: usize) {
        let Some(gateway) = &self.gateways[router] else { return };
        let now = Tick::from(self.local(router));
        let is_overdue = |(connection, target, state): &(Connection, usize, FlowState)| {
            let limit = match state {
                FlowState::Confirmed | FlowState::Reopened | FlowState::Udp => return false,
                FlowState::Ended => AGES.ended,
                FlowState::HalfOpen => AGES.half_open,
                FlowState::Open | FlowState::Closing if gateway.is_complete(*target) => {
                    AGES.unreported + SELDOM_WRITTEN
                }
                FlowState::Closing => AGES.closing + SELDOM_WRITTEN,
                FlowState::Open => return false,
            };
            let ticks = (limit + AGEING).as_millis() / 250;
            gateway.silence(connection, now).is_some_and(|silence| u128::from(silence) > ticks)
        };
        let overdue: Vec<_> = gateway.known().into_iter().filter(is_overdue).collect();
        let (at, runs) = (self.now, self.runs(router));
        let is_listed = |connection: &Connection| overdue.iter().any(|(listed, ..)| listed == connection);
        self.checks.overdue.retain(|(of, connection), _| *of != router || runs && is_listed(connection));
        for (connection, target, state) in overdue.into_iter().filter(|_| runs) {
            let since = *self.checks.overdue.entry((router, connection)).or_insert(at);
            if at - since > OVERDUE {
                let who = router + 1;
                self.fail(format!(
                    "I7: r{who}: {connection:?} at t{}, {state:?}, has outlived its limit: no target reports it",
                    target + 1
                ));
            }
        }
    }
}
