//! Packet capture for operators: copies of packets that workers make for control on request.
//!
//! A capture is part of the routes. Workers check for one in their housekeeping, not for each packet. While there is
//! one they take packets one at a time, so that the change of the counters by each packet is that packet's fate.

use std::{fmt, net::IpAddr, time::Duration};

use vipa_model::{Moment, PortId};
use vipa_packet::ethernet;
use vipa_sync::{Counter, Flag, Mailbox};

use crate::Fate;

/// Records that control has not read yet; any more are lost and counted.
const RECORDS: usize = 4_096;
/// Bytes kept of a packet.
pub const CAPTURED_BYTES: usize = 1_600;

/// Fate of a captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapturedFate {
    Fate(Fate),
    /// It is held; its fate is in another record.
    Held,
    /// A fate that could not be determined: two at once, or none.
    Unknown,
}

impl CapturedFate {
    /// The fate's counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fate(fate) => fate.name(),
            Self::Held => "held",
            Self::Unknown => "unknown",
        }
    }
}

/// A packet as it arrived or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRecord {
    pub at: Moment,
    pub port: PortId,
    pub is_outgoing: bool,
    pub fate: CapturedFate,
    /// Length of the frame, of which `bytes` has the first [`CAPTURED_BYTES`].
    pub length: u32,
    pub bytes: Box<[u8]>,
}

/// A capture under way: control makes it, workers fill it.
pub struct Capture {
    vipa: Option<IpAddr>,
    /// By [`Fate::index`], then held.
    fates: Box<[bool]>,
    limit: u64,
    until: Moment,
    taken: Counter,
    stopped: Flag,
    records: Mailbox<Box<CaptureRecord>>,
}

impl Capture {
    /// Captures packets with this VIPA's address (`None`: all) and a fate whose name matches one of the patterns,
    /// separated by commas (`*` stands for any text): `limit` records at most, from `now` on for this long at most.
    ///
    /// # Errors
    /// A sentence when a pattern matches no fate.
    pub fn new(vipa: Option<IpAddr>, fates: &str, limit: u64, now: Moment, time: Duration) -> Result<Self, String> {
        let names: Vec<&str> = Fate::all().map(Fate::name).chain(["held"]).collect();
        let patterns: Vec<&str> = fates.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()).collect();
        for pattern in &patterns {
            if !names.iter().any(|name| matches(pattern, name)) {
                return Err(format!(
                    "no fate is called {pattern}; docs/counters.md has their names, such as dropped.no-target or dropped.*"
                ));
            }
        }
        let is_meant = |name: &&str| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name));
        Ok(Self {
            vipa,
            fates: names.iter().map(is_meant).collect(),
            limit,
            until: now + time,
            taken: Counter::default(),
            stopped: Flag::default(),
            records: Mailbox::new(RECORDS),
        })
    }

    /// Whether the capture is over.
    #[must_use]
    pub fn is_over(&self, now: Moment) -> bool {
        self.stopped.is_raised() || now >= self.until || self.taken.read() >= self.limit
    }

    /// Ends the capture.
    pub fn stop(&self) {
        self.stopped.raise();
    }

    /// Whether this frame is to be captured, whatever its fate.
    #[must_use]
    pub fn concerns(&self, frame: &[u8]) -> bool {
        self.vipa.is_none_or(|vipa| has_address(frame, vipa))
    }

    /// Whether packets of this fate are to be captured.
    #[must_use]
    pub fn has_fate(&self, fate: CapturedFate) -> bool {
        let index = match fate {
            CapturedFate::Fate(fate) => fate.index(),
            CapturedFate::Held => Fate::COUNT,
            CapturedFate::Unknown => return true,
        };
        self.fates.get(index).copied().unwrap_or_default()
    }

    /// Keeps a packet for control. False: the capture is over, or control does not keep up.
    pub fn record(&self, packet: CaptureRecord) -> bool {
        self.taken.take() < self.limit && self.records.try_send(Box::new(packet)).is_ok()
    }

    /// The oldest packet that control has not read yet.
    #[must_use]
    pub fn next(&self) -> Option<Box<CaptureRecord>> {
        self.records.try_receive()
    }

    /// Packets that were lost because there was no room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.records.refused()
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("vipa", &self.vipa).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Whether `name` matches the pattern; `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|name| {
            // Each position at which the rest may begin.
            (0..=name.len()).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
        }),
    }
}

/// Whether a frame comes from or goes to this address, by IP, ARP or neighbour discovery.
fn has_address(frame: &[u8], address: IpAddr) -> bool {
    let Some((tagged, ether_type)) = ethernet::ether_type(frame) else { return false };
    let packet =
        &frame[if tagged { ethernet::HEADER + ethernet::VLAN_TAG } else { ethernet::HEADER }.min(frame.len())..];
    let has = |at: usize, bytes: &[u8]| packet.get(at..at + bytes.len()) == Some(bytes);
    match (address, ether_type) {
        (IpAddr::V4(address), 0x0800) => has(12, &address.octets()) || has(16, &address.octets()),
        (IpAddr::V4(address), 0x0806) => has(14, &address.octets()) || has(24, &address.octets()),
        // A neighbour's question or answer names its subject after the ICMPv6 header.
        (IpAddr::V6(address), 0x86dd) => [8, 24, 48].into_iter().any(|at| has(at, &address.octets())),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use vipa_packet::PacketBuf;
    use vipa_packet::build::packet;

    use super::*;
    use crate::Reason;

    const NOW: Moment = Moment(1_000);

    fn capture(vipa: Option<&str>, fates: &str, limit: u64) -> Capture {
        let vipa = vipa.map(|vipa| vipa.parse().unwrap());
        Capture::new(vipa, fates, limit, NOW, Duration::from_secs(1)).unwrap()
    }

    fn record() -> CaptureRecord {
        let fate = CapturedFate::Fate(Fate::Forward);
        CaptureRecord { at: NOW, port: PortId(0), is_outgoing: false, fate, length: 3, bytes: Box::new([1, 2, 3]) }
    }

    #[test]
    fn fates_are_meant_by_name_and_pattern() {
        let no_target = CapturedFate::Fate(Fate::Drop(Reason::NoTarget));
        let forwarded = CapturedFate::Fate(Fate::Forward);
        let meant =
            |fates: &str| [no_target, forwarded, CapturedFate::Held].map(|fate| capture(None, fates, 1).has_fate(fate));
        assert_eq!(meant(""), [true; 3]);
        assert_eq!(meant("dropped.*"), [true, false, false]);
        assert_eq!(meant("*.no-target, held"), [true, false, true]);
        assert_eq!(meant("forwarded"), [false, true, false]);
        let wrong = Capture::new(None, "dropped.*,lost", 1, NOW, Duration::ZERO).unwrap_err();
        assert!(wrong.starts_with("no fate is called lost"), "{wrong}");
    }

    #[test]
    fn frames_are_meant_by_address_in_either_direction() {
        let capture = capture(Some("192.0.2.10"), "", 1);
        let frame = |from: &str, to: &str| packet().ipv4(from, to).tcp(1, 2).build();
        assert!(capture.concerns(frame("203.0.113.4", "192.0.2.10").bytes()));
        assert!(capture.concerns(frame("192.0.2.10", "203.0.113.4").bytes()));
        assert!(!capture.concerns(frame("203.0.113.4", "192.0.2.11").bytes()));
        assert!(capture.concerns(packet().arp_request("203.0.113.4", "192.0.2.10").build().bytes()));
        for length in 0..40 {
            let _ = capture.concerns(&frame("203.0.113.4", "192.0.2.10").bytes()[..length]);
        }
        let ipv6 = self::capture(Some("2001:db8::10"), "", 1);
        assert!(ipv6.concerns(packet().ipv6("2001:db8:1::4", "2001:db8::10").tcp(1, 2).build().bytes()));
    }

    #[test]
    fn no_more_is_taken_than_the_limit_and_nothing_after_the_end() {
        let two = capture(None, "", 2);
        assert_eq!([two.record(record()), two.record(record()), two.record(record())], [true, true, false]);
        assert!(two.is_over(NOW));
        assert_eq!(two.next().as_deref(), Some(&record()));
        let many = capture(None, "", u64::MAX);
        assert!(!many.is_over(NOW) && many.is_over(NOW + Duration::from_secs(1)));
        for _ in 0..RECORDS + 3 {
            many.record(record());
        }
        assert_eq!(many.lost(), 3);
        many.stop();
        assert!(many.is_over(NOW));
    }
}
