//! Gratuitous ARP and unsolicited neighbour advertisements for VIPAs newly owned: at once, then again on a widening
//! schedule, because a switch or a client may miss the first (RFC 5227 §3 sends at least two, RFC 4861 §7.2.6 up to
//! three), and then now and then for as long as they are owned.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_handoff::PortRoute;
use vipa_model::{Mac, Moment, PortId, config};

use crate::control::{Control, send_frame};

/// What is still to be announced.
#[derive(Debug)]
pub(crate) struct Announcements {
    /// Delays of the repetitions after the first announcement, growing.
    repeat: Vec<Duration>,
    refresh: Option<Duration>,
    pending: BTreeMap<IpAddr, Pending>,
}

#[derive(Debug)]
struct Pending {
    since: Moment,
    /// Repetitions of the schedule behind us.
    done: usize,
    next: Moment,
}

impl Announcements {
    pub(crate) fn new(settings: &config::Announce) -> Self {
        Self { repeat: settings.repeat.clone(), refresh: settings.refresh, pending: BTreeMap::new() }
    }

    /// Another schedule; what is owned already goes on by its refreshing alone.
    pub(crate) fn reschedule(&mut self, settings: &config::Announce, now: Moment) {
        *self = Self { pending: std::mem::take(&mut self.pending), ..Self::new(settings) };
        let (done, refresh) = (self.repeat.len(), self.refresh);
        self.pending.values_mut().for_each(|pending| {
            (pending.done, pending.next) = (done, refresh.map_or(Moment::NEVER, |refresh| now + refresh));
        });
    }

    /// Starts announcing `vipa`; the caller sends the first one itself, now.
    pub(crate) fn begin(&mut self, vipa: IpAddr, now: Moment) {
        let mut pending = Pending { since: now, done: 0, next: now };
        pending.next = self.after(&pending, now);
        self.pending.insert(vipa, pending);
    }

    /// It is ours no longer.
    pub(crate) fn end(&mut self, vipa: IpAddr) {
        self.pending.remove(&vipa);
    }

    /// Names every VIPA to announce now. What was missed while nobody asked is not made up for.
    pub(crate) fn due(&mut self, now: Moment, mut announce: impl FnMut(IpAddr)) {
        let mut pending = std::mem::take(&mut self.pending);
        for (&vipa, pending) in pending.iter_mut().filter(|(_, pending)| pending.next <= now) {
            announce(vipa);
            let late = |delay: &&Duration| pending.since + **delay <= now;
            pending.done = self.repeat.iter().take_while(late).count();
            pending.next = self.after(pending, now);
        }
        self.pending = pending;
    }

    fn after(&self, pending: &Pending, now: Moment) -> Moment {
        match (self.repeat.get(pending.done), self.refresh) {
            (Some(&delay), _) => pending.since + delay,
            (None, Some(refresh)) => now + refresh,
            (None, None) => Moment::NEVER,
        }
    }
}

impl Control {
    /// Tells every port's network that `vipa` is here; those who ignore announcements are asked something next.
    pub(crate) fn announce(&mut self, vipa: IpAddr) {
        self.send_on_each_port(|port| announcement(port, vipa));
        self.neighbour_prompts.want(vipa, &self.routing.ports, self.clock.now());
    }

    /// Asks whether another station has `vipa`, too. Stations do not learn from the question where it is.
    pub(crate) fn probe_vipa(&self, vipa: IpAddr) {
        self.send_on_each_port(|port| probe(port, vipa));
    }

    fn send_on_each_port(&self, frame: impl Fn(&PortRoute) -> Vec<u8>) {
        for (id, port) in (0..=u16::MAX).map(PortId).zip(&self.routing.ports) {
            send_frame(&self.channel, &self.counts, (id, port), &frame(port));
        }
    }
}

/// Who has `address`?
pub(crate) fn question(port: &PortRoute, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => vipa_packet::arp::request(&port.mac.0, port.address, address).to_vec(),
        IpAddr::V6(address) => vipa_packet::nd::solicitation(&port.mac.0, port.source6(), address).to_vec(),
    }
}

/// Whether the station `known` still has `address`, which is asked there and nowhere else.
pub(crate) fn question_to(port: &PortRoute, address: IpAddr, known: Mac) -> Vec<u8> {
    let mut frame = question(port, address);
    vipa_packet::ethernet::set_macs(&mut frame, &known.0, &port.mac.0);
    frame
}

/// `vipa` is here from now on.
pub(crate) fn announcement(port: &PortRoute, vipa: IpAddr) -> Vec<u8> {
    match vipa {
        IpAddr::V4(vipa) => vipa_packet::arp::gratuitous(&port.mac.0, vipa).to_vec(),
        IpAddr::V6(vipa) => vipa_packet::nd::unsolicited(&port.mac.0, vipa).to_vec(),
    }
}

/// Asks who has `address`, as the VIPA, which is here.
pub(crate) fn question_as(port: &PortRoute, vipa: IpAddr, address: IpAddr) -> Vec<u8> {
    match (vipa, address) {
        (IpAddr::V4(vipa), IpAddr::V4(address)) => vipa_packet::arp::request(&port.mac.0, vipa, address).to_vec(),
        (IpAddr::V6(vipa), IpAddr::V6(address)) => vipa_packet::nd::solicitation(&port.mac.0, vipa, address).to_vec(),
        // Connections have one family.
        _ => question(port, address),
    }
}

/// Has another station this router's `vipa`?
fn probe(port: &PortRoute, vipa: IpAddr) -> Vec<u8> {
    match vipa {
        IpAddr::V4(vipa) => vipa_packet::arp::probe(&port.mac.0, vipa).to_vec(),
        IpAddr::V6(vipa) => vipa_packet::nd::probe(&port.mac.0, vipa).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

    fn schedule(refresh: Option<Duration>) -> Announcements {
        let repeat = [20, 100, 500].map(Duration::from_millis).to_vec();
        let mut list = Announcements::new(&config::Announce { repeat, refresh, interface: None, table: 7_400 });
        list.begin(VIPA, Moment::ZERO);
        list
    }

    /// When it is announced, milliseconds, of those at which it is looked at.
    fn announced(list: &mut Announcements, looks: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut times = Vec::new();
        for ms in looks {
            list.due(Moment::ZERO + Duration::from_millis(ms), |_| times.push(ms));
        }
        times
    }

    #[test]
    fn a_question_as_the_vipa_says_where_it_is() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let port = PortRoute::new(mac, Ipv4Addr::new(198, 51, 100, 1), 24);
        let body = |vipa: &str, asked: &str| {
            let frame = question_as(&port, vipa.parse().unwrap(), asked.parse().unwrap());
            vipa_packet::parse(&frame).unwrap().body
        };
        let vipa_packet::Body::Arp(arp) = body("192.0.2.10", "198.51.100.9") else { panic!("ARP") };
        assert_eq!(
            (arp.neighbour(), arp.target),
            (Some((Ipv4Addr::new(192, 0, 2, 10), mac.0)), Ipv4Addr::new(198, 51, 100, 9))
        );
        let vipa_packet::Body::Ipv6Icmp(icmp) = body("2001:db8::10", "2001:db8::9") else { panic!("ICMPv6") };
        let vipa: std::net::Ipv6Addr = "2001:db8::10".parse().unwrap();
        let vipa_packet::Icmp6::Solicitation(asked) = icmp.message else { panic!("a solicitation") };
        assert_eq!((icmp.source, asked.source_mac), (vipa.to_bits(), Some(mac.0)));
    }

    #[test]
    fn a_vipa_is_announced_again_on_schedule_and_then_no_more() {
        assert_eq!(announced(&mut schedule(None), (0..100_000).step_by(5)), [20, 100, 500]);
    }

    #[test]
    fn it_is_refreshed_for_as_long_as_it_is_owned() {
        let mut list = schedule(Some(Duration::from_secs(60)));
        assert_eq!(announced(&mut list, (0..130_000).step_by(5)), [20, 100, 500, 60_500, 120_500]);
        list.end(VIPA);
        assert!(announced(&mut list, (130_000..600_000).step_by(500)).is_empty());
    }

    #[test]
    fn one_announcement_stands_for_all_that_were_missed() {
        assert_eq!(announced(&mut schedule(None), [400, 450, 500, 600]), [400, 500]);
    }

    #[test]
    fn a_new_schedule_leaves_what_is_owned_to_its_refreshing() {
        let mut list = schedule(None);
        let (repeat, refresh) = (vec![Duration::from_millis(1)], Some(Duration::from_secs(2)));
        list.reschedule(&config::Announce { repeat, refresh, interface: None, table: 7_400 }, Moment::ZERO);
        assert_eq!(announced(&mut list, (0..4_500).step_by(5)), [2_000, 4_000]);
    }
}
