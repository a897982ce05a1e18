//! Other stations that say that they have a VIPA of this router (RFC 5227 §2.4, RFC 4862 §5.4).
//!
//! ```text
//!   station announces ──► answered by one announcement at once ──► DEFEND_INTERVAL ──► by another one if it has spoken since
//! ```
//! The last word is this router's, however often a station announces, and no more than one announcement in [`DEFEND_INTERVAL`] is
//! made for it: two routers that both own a VIPA (`quorum = "none"` and a partition) do not storm. A station that has a
//! VIPA and never says so is found by the probe that follows each repeated announcement.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::{Mac, Moment, PortId};
use vipa_protocol::EventKind;

use crate::control::Control;

/// Between two announcements of a VIPA against others. RFC 5227 names 10 s for stations that give way in the end. A VIPA's owner does
/// not, and its clients are to find it again soon.
const DEFEND_INTERVAL: Duration = Duration::from_secs(1);
/// VIPAs defended in one turn of housekeeping; the others in the next ones.
const DEFENDED_AT_ONCE: usize = 2;
/// Announcements of the owner before may still be on the way for so long after a takeover: they are answered, and not told of.
const SETTLING: Duration = Duration::from_secs(2);
/// A conflict is shown for so long after it was last heard of.
const SHOWN: Duration = Duration::from_secs(600);
/// Between two lines in the log about one VIPA and station.
const LINE: Duration = Duration::from_secs(60);
/// Lines in the log about all of them within [`LINE`].
const LINES: u32 = 20;

/// What another station says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) vipa: IpAddr,
    pub(crate) port: PortId,
    pub(crate) mac: Mac,
}

/// The claims to a VIPA, the newest one in full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) port: PortId,
    pub(crate) mac: Mac,
    pub(crate) claims: u64,
    pub(crate) last: Moment,
    defended: Option<Moment>,
    /// When to announce against it next.
    defend_at: Option<Moment>,
    told: Option<Moment>,
    /// It is no echo of the owner before.
    is_certain: bool,
}

/// No more than VIPAs that this router owns or has owned within [`SHOWN`].
#[derive(Debug, Default)]
pub(crate) struct Conflicts {
    by_vipa: BTreeMap<IpAddr, Conflict>,
    /// Lines in the log since a moment, for their limit.
    lines: (u32, Moment),
}

impl Conflicts {
    /// Takes in what a station says; true if the log is to tell of it.
    pub(crate) fn observe(&mut self, claim: Claim, is_settling: bool, now: Moment) -> bool {
        let Claim { vipa, port, mac } = claim;
        let new = Conflict {
            port,
            mac,
            claims: 0,
            last: now,
            defended: None,
            defend_at: None,
            told: None,
            is_certain: false,
        };
        let conflict = self.by_vipa.entry(vipa).or_insert(new);
        let is_stale = conflict.mac != mac || conflict.told.is_none_or(|told| now.since(told) >= LINE);
        let earliest = conflict.defended.map_or(now, |defended| now.max(defended + DEFEND_INTERVAL));
        (conflict.port, conflict.mac, conflict.last) = (port, mac, now);
        conflict.defend_at.get_or_insert(earliest);
        if is_settling {
            return false;
        }
        conflict.claims += 1;
        conflict.is_certain = true;
        if now.since(self.lines.1) >= LINE {
            self.lines = (0, now);
        }
        let is_told = is_stale && self.lines.0 < LINES;
        if is_told {
            self.lines.0 += 1;
            conflict.told = Some(now);
        }
        is_told
    }

    /// Names the VIPAs to announce now.
    pub(crate) fn due(&mut self, now: Moment) -> Vec<IpAddr> {
        let is_due = |conflict: &Conflict| conflict.defend_at.is_some_and(|at| at <= now);
        let mut due = Vec::new();
        for (vipa, conflict) in self.by_vipa.iter_mut().filter(|(_, conflict)| is_due(conflict)).take(DEFENDED_AT_ONCE)
        {
            (conflict.defended, conflict.defend_at) = (Some(now), None);
            due.push(*vipa);
        }
        due
    }

    /// The VIPA is another router's now, and so is its defence.
    pub(crate) fn end(&mut self, vipa: IpAddr) {
        if let Some(conflict) = self.by_vipa.get_mut(&vipa) {
            conflict.defend_at = None;
        }
    }

    pub(crate) fn forget_old(&mut self, now: Moment) {
        self.by_vipa.retain(|_, conflict| conflict.defend_at.is_some() || now.since(conflict.last) < SHOWN);
    }

    /// Those to show.
    pub(crate) fn all(&self) -> impl Iterator<Item = (IpAddr, &Conflict)> {
        self.by_vipa.iter().filter(|(_, conflict)| conflict.is_certain).map(|(vipa, conflict)| (*vipa, conflict))
    }
}

impl Control {
    /// Another station says that it has a VIPA of this router.
    pub(crate) fn hear_claim(&mut self, claim: Claim, now: Moment) {
        let Claim { vipa, port, mac } = claim;
        let Some(index) = self.routing.vipa_index(vipa).filter(|_| self.may_announce(vipa, now)) else { return };
        let is_settling = self.routing.vipas[index].owned_since.is_some_and(|since| now.since(since) < SETTLING);
        self.counts.conflicts_heard += 1;
        if self.conflicts.observe(claim, is_settling, now) {
            let port = self.port_name(port);
            let also = self.routing.neighbours.address_of(mac).map(|address| format!(", which is {address} as well"));
            tracing::warn!(
                %vipa, %mac, port,
                "another station says that it has a VIPA of this router{}: take the address away there; this router announces it again",
                also.unwrap_or_default()
            );
            let (mac, port) = (mac.to_string(), port.to_owned());
            self.write_down(EventKind::AddressConflict { vipa, mac, port });
        }
    }

    /// Announces the VIPAs that other stations say they have.
    pub(crate) fn defend(&mut self, now: Moment) {
        for vipa in self.conflicts.due(now) {
            if self.may_announce(vipa, now) {
                self.counts.conflicts_answered += 1;
                self.announce(vipa);
            }
        }
        self.conflicts.forget_old(now);
    }

    /// As the configuration names it.
    pub(crate) fn port_name(&self, port: PortId) -> &str {
        self.config.ports.get(usize::from(port.0)).map_or("?", |port| port.name.as_str())
    }

    /// Whether this router may announce the VIPA: it owns it, its lease holds, and it has consented to no successor.
    pub(crate) fn may_announce(&self, vipa: IpAddr, now: Moment) -> bool {
        self.cluster.brief(vipa).is_some_and(|brief| brief.may_announce(now))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
    const STATION: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const CLAIM: Claim = Claim { vipa: VIPA, port: PortId(0), mac: STATION };

    fn at(ms: u64) -> Moment {
        Moment(5_000_000_000) + Duration::from_millis(ms)
    }

    /// When the VIPA is announced against a station that speaks at these milliseconds.
    fn answers(conflicts: &mut Conflicts, claims: &[u64], until: u64) -> Vec<u64> {
        let mut answers = Vec::new();
        for ms in 0..until {
            if claims.contains(&ms) {
                conflicts.observe(CLAIM, false, at(ms));
            }
            answers.extend(conflicts.due(at(ms)).iter().map(|_| ms));
        }
        answers
    }

    #[test]
    fn a_claim_is_answered_at_once_and_the_last_word_is_the_owners() {
        assert_eq!(answers(&mut Conflicts::default(), &[100], 10_000), [100]);
        // As keepalived announces: several times in a row.
        assert_eq!(answers(&mut Conflicts::default(), &[100, 101, 102, 103, 104], 10_000), [100, 1_100]);
        assert_eq!(answers(&mut Conflicts::default(), &[100, 900, 5_000], 10_000), [100, 1_100, 5_000]);
    }

    #[test]
    fn who_never_stops_is_answered_once_a_second() {
        let always: Vec<u64> = (0..10_000).collect();
        let answers = answers(&mut Conflicts::default(), &always, 10_000);
        assert_eq!(answers, (0..10).map(|second| second * 1_000).collect::<Vec<_>>());
    }

    /// Each hears the announcements of the other a millisecond later.
    #[test]
    fn two_owners_that_hear_each_other_do_not_storm() {
        let (mut one, mut other) = (Conflicts::default(), Conflicts::default());
        one.observe(CLAIM, false, at(0));
        let mut announced = 0;
        for ms in 0..60_000 {
            if !one.due(at(ms)).is_empty() {
                announced += 1;
                other.observe(CLAIM, false, at(ms + 1));
            }
            if !other.due(at(ms)).is_empty() {
                announced += 1;
                one.observe(CLAIM, false, at(ms + 1));
            }
        }
        assert!((100..=122).contains(&announced), "{announced}");
    }

    #[test]
    fn many_vipas_are_defended_a_few_at_a_time() {
        let mut conflicts = Conflicts::default();
        for number in 0..1_000 {
            let vipa = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
            conflicts.observe(Claim { vipa, ..CLAIM }, false, at(0));
        }
        let turns: Vec<usize> = std::iter::repeat_with(|| conflicts.due(at(1)).len()).take_while(|n| *n > 0).collect();
        assert_eq!((turns.len(), turns.iter().max()), (1_000 / DEFENDED_AT_ONCE, Some(&DEFENDED_AT_ONCE)));
    }

    #[test]
    fn the_log_names_each_station_and_then_once_a_minute() {
        let mut conflicts = Conflicts::default();
        let other = Claim { mac: Mac([2, 0, 0, 0, 0, 8]), ..CLAIM };
        let lines: Vec<bool> = [(CLAIM, 0), (CLAIM, 10), (other, 20), (other, 30), (other, 60_020)]
            .map(|(claim, ms)| conflicts.observe(claim, false, at(ms)))
            .into();
        assert_eq!(lines, [true, false, true, false, true]);
        let many = (0..1_000).filter(|number| {
            let vipa = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
            conflicts.observe(Claim { vipa, ..CLAIM }, false, at(60_030))
        });
        assert_eq!(many.count(), LINES as usize - 1);
    }

    #[test]
    fn what_the_owner_before_had_on_its_way_is_answered_and_not_told_of() {
        let mut conflicts = Conflicts::default();
        assert!(!conflicts.observe(CLAIM, true, at(0)));
        assert_eq!((conflicts.due(at(0)), conflicts.all().count()), (vec![VIPA], 0));
        assert!(conflicts.observe(CLAIM, false, at(3_000)), "it goes on");
        assert_eq!(conflicts.all().map(|(vipa, conflict)| (vipa, conflict.claims)).collect::<Vec<_>>(), [(VIPA, 1)]);
    }

    #[test]
    fn what_is_another_routers_is_not_defended_and_what_is_long_ago_is_not_shown() {
        let mut conflicts = Conflicts::default();
        conflicts.observe(CLAIM, false, at(0));
        conflicts.end(VIPA);
        assert!(conflicts.due(at(0)).is_empty());
        conflicts.forget_old(at(599_000));
        assert_eq!(conflicts.all().count(), 1);
        conflicts.forget_old(at(600_000));
        assert_eq!(conflicts.by_vipa.len(), 0);
    }
}
