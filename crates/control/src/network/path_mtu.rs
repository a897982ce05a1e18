//! What the paths to tunnels' targets take, as routers on them have said (RFC 1191, RFC 8201).
//!
//! A path's MTU is lowered for [`KEPT`], and then tried again at the port's: a path that is still narrow says so to the first large
//! packet. What a router says is no proof that it is on the path, so a path's MTU never falls below [`LEAST`] or [`LEAST6`], and
//! only paths that a tunnel uses are kept.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::Moment;

use crate::control::Control;

/// How long a lowered MTU is kept (RFC 1191 §6.3, RFC 8201 §4).
const KEPT: Duration = Duration::from_secs(600);
/// The least that is believed, bytes of IP: what every host takes (RFC 791 §3.2), and what every link of IPv6 takes (RFC 8200 §5).
const LEAST: u16 = 576;
const LEAST6: u16 = 1_280;

/// Paths that take less than their port. There are no more than targets.
#[derive(Debug, Default)]
pub(crate) struct PathMtus {
    lowered: BTreeMap<IpAddr, Lowered>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lowered {
    mtu: u16,
    until: Moment,
}

impl PathMtus {
    /// Takes in that a link on the path to `target` takes `mtu` bytes. The path's MTU, if that is lower than before.
    pub(crate) fn lower(&mut self, target: IpAddr, mtu: u16, now: Moment) -> Option<u16> {
        let mtu = mtu.max(if target.is_ipv4() { LEAST } else { LEAST6 });
        if self.of(target).is_some_and(|known| known <= mtu) {
            return None;
        }
        self.lowered.insert(target, Lowered { mtu, until: now + KEPT });
        Some(mtu)
    }

    /// What the path to `target` takes, if it was lowered.
    pub(crate) fn of(&self, target: IpAddr) -> Option<u16> {
        self.lowered.get(&target).map(|lowered| lowered.mtu)
    }

    /// Forgets what has been kept for long enough. Says of whom, each once.
    pub(crate) fn expire(&mut self, now: Moment) -> Vec<IpAddr> {
        if !self.lowered.values().any(|lowered| lowered.until <= now) {
            return Vec::new();
        }
        let over = self.lowered.iter().filter(|(_, lowered)| lowered.until <= now).map(|(target, _)| *target);
        let over: Vec<_> = over.collect();
        over.iter().for_each(|target| _ = self.lowered.remove(target));
        over
    }

    /// Every lowered path, what it takes and how long that is kept.
    pub(crate) fn all(&self, now: Moment) -> impl Iterator<Item = (IpAddr, u16, Duration)> + '_ {
        self.lowered.iter().map(move |(target, lowered)| (*target, lowered.mtu, lowered.until.since(now)))
    }
}

impl Control {
    /// Takes in what routers said of paths to targets (a target and what a link takes, bytes of IP), and gives paths the port's MTU
    /// again whose lowered one has been kept for long enough.
    pub(crate) fn change_paths(&mut self, narrowed: &[(IpAddr, u16)], now: Moment) {
        for &(target, mtu) in narrowed {
            if let Some(mtu) = self.routing.narrow_path(target, mtu, now) {
                tracing::warn!(%target, mtu, "a router says that the path of this target's tunnel takes less than the port");
                self.counts.paths_lowered += 1;
                self.routes_stale = true;
            }
        }
        for target in self.routing.path_mtus.expire(now) {
            tracing::info!(%target, "the path of this target's tunnel is tried with the port's MTU again");
            self.routes_stale = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const TARGET6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x21));
    const NOW: Moment = Moment(5_000_000_000);

    #[test]
    fn a_path_is_lowered_for_ten_minutes_and_no_word_of_more_raises_it() {
        let mut paths = PathMtus::default();
        assert_eq!(paths.lower(TARGET, 1_400, NOW), Some(1_400));
        for known in [1_400, 1_450, u16::MAX] {
            assert_eq!(paths.lower(TARGET, known, NOW + Duration::from_secs(300)), None);
        }
        assert_eq!(paths.of(TARGET), Some(1_400));
        assert_eq!(paths.all(NOW).collect::<Vec<_>>(), [(TARGET, 1_400, KEPT)]);
        assert_eq!(paths.expire(NOW + KEPT - Duration::from_millis(1)), Vec::<IpAddr>::new());
        assert_eq!(paths.expire(NOW + KEPT), [TARGET]);
        assert_eq!((paths.of(TARGET), paths.expire(NOW + KEPT)), (None, vec![]));
    }

    #[test]
    fn a_path_that_turns_out_to_be_narrower_is_kept_from_then_on() {
        let mut paths = PathMtus::default();
        let later = NOW + Duration::from_secs(500);
        assert_eq!((paths.lower(TARGET, 1_400, NOW), paths.lower(TARGET, 1_300, later)), (Some(1_400), Some(1_300)));
        assert_eq!(paths.expire(NOW + KEPT), Vec::<IpAddr>::new());
        assert_eq!(paths.expire(later + KEPT), [TARGET]);
    }

    #[test]
    fn nobody_can_say_that_a_path_takes_nothing() {
        let mut paths = PathMtus::default();
        assert_eq!((paths.lower(TARGET, 0, NOW), paths.lower(TARGET6, 68, NOW)), (Some(576), Some(1_280)));
        assert_eq!((paths.lower(TARGET, 1, NOW), paths.lower(TARGET6, 1_279, NOW)), (None, None));
    }
}
