//! Time as the table stores it: coarse and in few bits. Packets of a busy connection refresh its entry's tick only once
//! in [`REFRESH_INTERVAL`].

use std::time::Duration;

use vipa_model::Moment;

/// Quarters of a second of the node's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u32);

const TICK_MS: u64 = 250;

impl From<Moment> for Tick {
    #[inline]
    fn from(moment: Moment) -> Self {
        // Wraps after 34 years; an entry keeps the low 16 bits only.
        Self((moment.0 / (TICK_MS * 1_000_000)) as u32)
    }
}

/// The longest idle time that an entry's 16 bits distinguish from a short one, with a good half hour left for the
/// ageing walk to reach the entry.
pub const LONGEST_AGE: Duration = Duration::from_secs(4 * 3_600);
const _: () = assert!(LONGEST_AGE.as_millis() as u64 / TICK_MS < AHEAD as u64);

/// Ages from here on are negative: two threads' clocks differ a little, so an entry may have been touched "in the
/// future".
const AHEAD: u16 = u16::MAX - 255;

/// Ticks between two refreshes of an entry whose packets change nothing else (four seconds): each write costs a
/// bus-locked instruction and dirties the entry's line. An entry may outlive its limit by this much.
pub const REFRESH_INTERVAL: u16 = 16;
const _: () = assert!(LONGEST_AGE.as_millis() as u64 / TICK_MS + (REFRESH_INTERVAL as u64) < AHEAD as u64);

/// Whether a tick of `touched` must be refreshed at `now`.
#[inline(always)]
pub(crate) fn is_stale(now: Tick, touched: u16) -> bool {
    (now.0 as u16).wrapping_sub(touched) >= REFRESH_INTERVAL
}

/// Ticks since `touched`, of which only the low 16 bits are known.
#[inline]
pub(crate) fn age(now: Tick, touched: u16) -> u16 {
    let age = (now.0 as u16).wrapping_sub(touched);
    if age >= AHEAD { 0 } else { age }
}

/// How long a connection may be silent, by state. More than [`LONGEST_AGE`] means for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeLimits {
    pub half_open: Duration,
    pub open: Duration,
    /// For ever by default: the target has reported that it holds the connection, and will report its end.
    pub confirmed: Duration,
    pub closing: Duration,
    pub udp: Duration,
    /// How long an ended entry outlives the end that its target has reported, and the client's last segment after it.
    /// The target answers these segments, for example from TIME-WAIT. A client whose last acknowledgement is lost repeats
    /// its FIN with twice the pause each time (RFC 6298 §5.5), so that an outage of half this length does no harm.
    pub ended: Duration,
    /// The longest silence of a connection whose target has a linked agent and has not reported it: it would have by
    /// now. Longer than the pause between a client's SYNs (16 seconds before the sixth, RFC 6298 §5.5).
    pub unreported: Duration,
}

impl Default for AgeLimits {
    fn default() -> Self {
        Self {
            half_open: Duration::from_secs(30),
            open: Duration::from_secs(3_600),
            confirmed: Duration::MAX,
            closing: Duration::from_secs(120),
            udp: Duration::from_secs(120),
            ended: Duration::from_secs(15),
            unreported: Duration::from_secs(20),
        }
    }
}

/// The limit in ticks. `None`: for ever.
pub(crate) fn limit_in_ticks(limit: Duration) -> Option<u16> {
    if limit > LONGEST_AGE {
        return None;
    }
    u16::try_from(limit.as_millis() as u64 / TICK_MS).ok()
}

/// The limit in ticks for a state in which a tick is refreshed only once in [`REFRESH_INTERVAL`]: that interval longer.
pub(crate) fn limit_with_refresh(limit: Duration) -> Option<u16> {
    limit_in_ticks(limit).map(|limit| limit + REFRESH_INTERVAL)
}
