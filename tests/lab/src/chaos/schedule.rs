//! The schedule of faults: the seed decides all of it.

use std::{fmt, time::Duration};

use super::{ROUTERS, TARGETS, VOTERS};

/// Faults at the same time, at most.
const AT_ONCE: usize = 2;
/// Time after the end of its fault in which an affected node recovers; until then it does not count as unaffected.
const RECOVERY: Duration = Duration::from_secs(2);
/// Between the beginnings of two faults, milliseconds.
const GAP_MS: (u64, u64) = (100, 1_500);
/// Servers are killed this rarely, because their connections are lost for the rest of the run.
const BETWEEN_KILLED_SERVERS: Duration = Duration::from_secs(90);

/// A fault, and the node that it affects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// SIGKILL; started again at the end.
    KillRouter(String),
    /// SIGTERM; started again at the end.
    StopRouter(String),
    /// SIGSTOP, and SIGCONT at the end.
    FreezeRouter(String),
    /// Unplugged at the switch, and plugged in again.
    Unplug(String),
    /// Messages between the node and all other nodes are lost; clients' packets are not.
    CutOff(String),
    /// Messages between two routers are lost.
    CutApart(String, String),
    /// Packets between the clients and this router are lost; messages between nodes are not.
    CutClients(String),
    /// SIGKILL to an agent; started again at the end. Its server lives on.
    KillAgent(String),
    FreezeAgent(String),
    /// SIGKILL to a target's servers: its connections are lost, and no others.
    KillServers(String),
    /// This percentage of all packets is lost, whoever sends them.
    Loss(u8),
    /// The VIPA is ordered to this router, and back to its first router at the end.
    Move(String),
    /// This router is ordered to leave, and to join again at the end.
    Leave(String),
    /// This target is quiesced, and resumed at the end.
    Quiesce(String),
    /// This router reloads a list without the last target, and the whole one at the end.
    Reload(String),
}

impl What {
    /// The node that does not count as unaffected meanwhile.
    #[must_use]
    pub fn hinders(&self) -> Option<&str> {
        match self {
            Self::KillRouter(node)
            | Self::StopRouter(node)
            | Self::FreezeRouter(node)
            | Self::Unplug(node)
            | Self::CutOff(node)
            | Self::CutApart(node, _)
            | Self::CutClients(node)
            | Self::KillAgent(node)
            | Self::FreezeAgent(node)
            | Self::Leave(node) => Some(node),
            Self::KillServers(_) | Self::Loss(_) | Self::Move(_) | Self::Quiesce(_) | Self::Reload(_) => None,
        }
    }
}

/// As in the log.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillRouter(node) => write!(f, "{node} is killed"),
            Self::StopRouter(node) => write!(f, "{node} is stopped in good order"),
            Self::FreezeRouter(node) => write!(f, "{node} is paused"),
            Self::Unplug(node) => write!(f, "{node}'s plug is pulled"),
            Self::CutOff(node) => write!(f, "{node} is cut off from all other nodes"),
            Self::CutApart(one, other) => write!(f, "{one} and {other} do not hear each other"),
            Self::CutClients(node) => write!(f, "{node} and the clients do not hear each other"),
            Self::KillAgent(node) => write!(f, "{node}'s agent is killed"),
            Self::FreezeAgent(node) => write!(f, "{node}'s agent is paused"),
            Self::KillServers(node) => write!(f, "{node}'s server is killed"),
            Self::Loss(percent) => write!(f, "{percent} % of all packets are lost"),
            Self::Move(node) => write!(f, "the VIPA is ordered to {node}"),
            Self::Leave(node) => write!(f, "{node} is ordered to leave"),
            Self::Quiesce(node) => write!(f, "{node} is quiesced"),
            Self::Reload(node) => write!(f, "{node}'s list of candidates is reloaded without the last"),
        }
    }
}

/// A fault and its time, from the beginning of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledFault {
    pub from: Duration,
    pub until: Duration,
    pub what: What,
}

/// All faults of a run in the order of their beginnings; the last is over at `time`.
#[must_use]
pub fn schedule(seed: u64, time: Duration) -> Vec<ScheduledFault> {
    let mut chance = Chance(seed);
    let mut all: Vec<ScheduledFault> = Vec::new();
    let mut now = Duration::from_millis(chance.between(GAP_MS));
    loop {
        let what = draw(&mut chance);
        let lasts = match what {
            // Clients wait for 30 s; TCP's retransmission timeouts double meanwhile.
            What::CutClients(_) | What::Loss(_) => Duration::from_millis(chance.between((300, 3_000))),
            _ => Duration::from_millis(chance.between((200, 6_000))),
        };
        let next = ScheduledFault { from: now, until: now + lasts, what };
        if next.until > time {
            return all;
        }
        if may_happen(&next, &all) {
            all.push(next);
        }
        now += Duration::from_millis(chance.between(GAP_MS));
    }
}

/// Whether enough nodes stay unaffected, with the faults decided so far.
fn may_happen(next: &ScheduledFault, all: &[ScheduledFault]) -> bool {
    let under_way = || all.iter().filter(|one| one.until > next.from);
    let killed = |one: &&ScheduledFault| matches!(one.what, What::KillServers(_));
    let mut servers = all.iter().filter(killed);
    if matches!(next.what, What::KillServers(_)) && servers.any(|one| one.from + BETWEEN_KILLED_SERVERS > next.from) {
        return false;
    }
    let loses = |one: &ScheduledFault| matches!(one.what, What::Loss(_));
    if under_way().count() >= AT_ONCE || (loses(next) && under_way().any(loses)) {
        return false;
    }
    if under_way().any(|one| one.what == next.what) {
        return false;
    }
    let Some(node) = next.what.hinders() else { return true };
    let recovering = || all.iter().filter(|one| one.until + RECOVERY > next.from);
    let hindered: Vec<&str> = recovering().filter_map(|one| one.what.hinders()).collect();
    let with = |count: fn(&str) -> bool| {
        let mut nodes: Vec<&str> = hindered.iter().copied().chain([node]).filter(|node| count(node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len()
    };
    let routers = with(|node| node.starts_with('r'));
    let voters = with(|node| VOTERS.contains(&node));
    // No node has two faults at once, and a target that no node can reach must leave another that is up to date.
    let same = recovering().any(|one| one.what.hinders() == Some(node));
    let targets = with(|node| node.starts_with('t'));
    !same && routers < usize::from(ROUTERS) && voters * 2 < VOTERS.len() && targets < 2 && (targets == 0 || routers < 2)
}

fn draw(chance: &mut Chance) -> What {
    // Half of the faults of routers are those of the usual owner.
    let router = |chance: &mut Chance| {
        let number = if chance.below(2) == 0 { 1 } else { 1 + chance.below(u64::from(ROUTERS)) };
        format!("r{number}")
    };
    let target = |chance: &mut Chance| format!("t{}", 1 + chance.below(u64::from(TARGETS)));
    match chance.below(27) {
        0..=3 => What::KillRouter(router(chance)),
        4 | 5 => What::StopRouter(router(chance)),
        6..=8 => What::FreezeRouter(router(chance)),
        9 | 10 => What::Unplug(router(chance)),
        11 | 12 => What::CutOff(router(chance)),
        13 => {
            let one = router(chance);
            let other = loop {
                let other = router(chance);
                if other != one {
                    break other;
                }
            };
            What::CutApart(one, other)
        }
        14 => What::CutClients(router(chance)),
        15 | 16 => What::KillAgent(target(chance)),
        17 | 18 => What::FreezeAgent(target(chance)),
        19 => What::KillServers(target(chance)),
        20 | 21 => What::Move(router(chance)),
        22 => What::Leave(router(chance)),
        23 => What::Quiesce(target(chance)),
        24 | 25 => What::Reload(router(chance)),
        _ => What::Loss(u8::try_from(1 + chance.below(5)).unwrap_or(1)),
    }
}

/// A pseudo-random sequence (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.below(most - least + 1)
    }
}

#[cfg(test)]
mod tests;
