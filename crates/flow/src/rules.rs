//! State of an entry after a packet or a report: every rule about a connection's life is here.
//!
//! | entry | client's SYN | other segment | FIN or RST | target: half-open | target: holds it | target: no longer holds it |
//! |---|---|---|---|---|---|---|
//! | none | `HalfOpen` | – | – | `HalfOpen` | `Confirmed` | – |
//! | `HalfOpen` | `HalfOpen` | `Open` | `Closing` | `HalfOpen` | `Confirmed`, after a recent SYN `Reopened` | – |
//! | `Open` | – | – | `Closing` | – | `Confirmed` | – |
//! | `Closing` | `HalfOpen` | – | – | `HalfOpen` | `Confirmed` | – |
//! | `Confirmed` | `Reopened` | – | – | – | – | `Ended` |
//! | `Reopened` | – | `Confirmed` once the SYN is not recent | as any segment | – | – | `HalfOpen`, without a recent SYN `Ended` |
//! | `Ended` | `HalfOpen` | – | – | `HalfOpen` | `Confirmed` | – |
//!
//! "–": nothing changes. A report is about a connection, not about its addresses and ports, which are used again within
//! milliseconds. Order distinguishes one connection from the next. A target's log is read in its order, so an end in
//! the log ends what the log reported before it, which is what made the entry `Confirmed`. An entry that no report has
//! confirmed is younger than every end in the log. A SYN on an entry whose end may be on its way is remembered
//! (`Reopened`), so that the end leaves an entry for the next connection.

use vipa_model::EntryState;

use crate::{tick::REFRESH_INTERVAL, word::FlowState};

/// Ticks since a SYN within which the end of the previous connection may still be on its way, however slow the agent is
/// (four seconds). Not longer than the interval at which an entry's tick is refreshed.
pub(crate) const RECENT: u16 = REFRESH_INTERVAL;

impl FlowState {
    /// The state that another router receives.
    #[must_use]
    pub fn told(self) -> EntryState {
        match self {
            Self::Ended => EntryState::Ended,
            Self::HalfOpen => EntryState::HalfOpen,
            Self::Open => EntryState::Open,
            Self::Confirmed | Self::Reopened => EntryState::Held,
            Self::Closing => EntryState::Closing,
            Self::Udp => EntryState::Udp,
        }
    }

    /// The state here of an entry that another router has sent: no report of its target has confirmed it to this
    /// router.
    #[must_use]
    pub fn of_told(state: EntryState) -> Self {
        match state {
            EntryState::HalfOpen => Self::HalfOpen,
            EntryState::Open | EntryState::Held => Self::Open,
            EntryState::Closing => Self::Closing,
            EntryState::Ended => Self::Ended,
            EntryState::Udp => Self::Udp,
        }
    }

    /// State after a segment without SYN. `settled`: no end that is on its way can be of the connection before the last
    /// SYN.
    #[inline(always)]
    #[must_use]
    pub fn after_segment(self, closes: bool, settled: bool) -> Self {
        match self {
            Self::HalfOpen | Self::Open if closes => Self::Closing,
            Self::HalfOpen => Self::Open,
            Self::Reopened if settled => Self::Confirmed,
            Self::Ended | Self::Reopened | Self::Open | Self::Confirmed | Self::Closing | Self::Udp => self,
        }
    }

    /// State after a client's SYN that is forwarded to the entry's target.
    #[must_use]
    pub fn after_syn(self) -> Self {
        match self {
            Self::HalfOpen | Self::Closing | Self::Ended => Self::HalfOpen,
            Self::Confirmed | Self::Reopened => Self::Reopened,
            // The sender may be anybody; the target answers the SYN (RFC 5961 §4).
            Self::Open | Self::Udp => self,
        }
    }

    /// State after its target has reported it as `report`. `silence`: ticks since the entry was last written.
    pub(crate) fn after_report(self, report: Self, silence: u16) -> Self {
        match (report, self) {
            (Self::HalfOpen, Self::Open | Self::Confirmed | Self::Reopened) => self,
            (Self::Confirmed, Self::Reopened) => self,
            (Self::Confirmed, Self::HalfOpen) if silence < RECENT => Self::Reopened,
            _ => report,
        }
    }

    /// State after its target has reported its end. `silence`: as above.
    pub(crate) fn after_end(self, silence: u16) -> Self {
        match self {
            Self::Confirmed => Self::Ended,
            Self::Reopened if silence < RECENT => Self::HalfOpen,
            Self::Reopened => Self::Ended,
            Self::Ended | Self::HalfOpen | Self::Open | Self::Closing | Self::Udp => self,
        }
    }
}
