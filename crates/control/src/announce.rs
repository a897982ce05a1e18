//! Gratuitous ARP and unsolicited neighbour advertisements for VIPAs newly owned: at once, then again on a widening schedule, because a switch or a client
//! may miss the first (RFC 5227 §3 sends at least two, RFC 4861 §7.2.6 up to
//! three).

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::Moment;

/// Delays of the repetitions after the first announcement.
const REPEATS: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// What is still to be announced.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    pending: BTreeMap<IpAddr, Pending>,
}

#[derive(Debug)]
struct Pending {
    since: Moment,
    done: usize,
}

impl Announcements {
    /// Starts announcing `vipa`; the caller sends the first one itself, now.
    pub(crate) fn begin(&mut self, vipa: IpAddr, now: Moment) {
        self.pending.insert(vipa, Pending { since: now, done: 0 });
    }

    /// It is ours no longer.
    pub(crate) fn end(&mut self, vipa: IpAddr) {
        self.pending.remove(&vipa);
    }

    /// Names every VIPA to announce now.
    pub(crate) fn due(&mut self, now: Moment, mut announce: impl FnMut(IpAddr)) {
        self.pending.retain(|&vipa, pending| {
            while pending.done < REPEATS.len() && pending.since + REPEATS[pending.done] <= now {
                pending.done += 1;
                announce(vipa);
            }
            pending.done < REPEATS.len()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

    fn announced_by(list: &mut Announcements, now: Duration) -> usize {
        let mut count = 0;
        list.due(Moment::ZERO + now, |_| count += 1);
        count
    }

    #[test]
    fn a_vipa_is_announced_again_on_schedule_and_then_no_more() {
        let mut list = Announcements::default();
        list.begin(VIPA, Moment::ZERO);
        assert_eq!(announced_by(&mut list, Duration::from_millis(19)), 0);
        assert_eq!(announced_by(&mut list, Duration::from_millis(20)), 1);
        assert_eq!(announced_by(&mut list, Duration::from_secs(1)), 3);
        assert_eq!(announced_by(&mut list, Duration::from_secs(60)), 2);
        assert_eq!(announced_by(&mut list, Duration::from_secs(120)), 0);
    }

    #[test]
    fn a_vipa_that_is_ours_no_longer_is_not_announced() {
        let mut list = Announcements::default();
        list.begin(VIPA, Moment::ZERO);
        list.end(VIPA);
        assert_eq!(announced_by(&mut list, Duration::from_secs(60)), 0);
    }
}
