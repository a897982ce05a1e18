//! Which state an entry has after a packet or a report: every rule about a connection's life stands here.
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
//! "–": nothing changes. A report is about a connection, not about its addresses and ports: these are used again within
//! milliseconds. What tells one connection from the next is order. A target's log is read in its order, so the end it
//! reports ends what it reported before, which is what made the entry `Confirmed`; an entry that no report has confirmed
//! is younger than every end in the log. A SYN that passes an entry whose end may be on its way is remembered
//! (`Reopened`), so that the end leaves the next connection's entry behind.

use vipa_model::EntryState;

use crate::{tick::HEARD_EVERY, word::FlowState};

/// Ticks since a SYN within which the end of the connection before it may still be on its way, however slow the agent
/// (four seconds). Not longer than a segment may pass without being written down.
pub(crate) const RECENT: u16 = HEARD_EVERY;

impl FlowState {
    /// What another router is told of an entry.
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

    /// What an entry is here that another router has told: no report of its target has confirmed it to this one.
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

    /// After a segment without SYN. `settled`: no end that is on its way can be of the connection before the last SYN.
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

    /// After a client's SYN that goes where the entry says.
    #[must_use]
    pub fn after_syn(self) -> Self {
        match self {
            Self::HalfOpen | Self::Closing | Self::Ended => Self::HalfOpen,
            Self::Confirmed | Self::Reopened => Self::Reopened,
            // Whoever sends this may be anybody; the target answers it (RFC 5961 §4).
            Self::Open | Self::Udp => self,
        }
    }

    /// After its target has reported it, in this state; `silence`: ticks since the entry was last written.
    pub(crate) fn after_report(self, report: Self, silence: u16) -> Self {
        match (report, self) {
            (Self::HalfOpen, Self::Open | Self::Confirmed | Self::Reopened) => self,
            (Self::Confirmed, Self::Reopened) => self,
            (Self::Confirmed, Self::HalfOpen) if silence < RECENT => Self::Reopened,
            _ => report,
        }
    }

    /// After its target has reported its end.
    pub(crate) fn after_end(self, silence: u16) -> Self {
        match self {
            Self::Confirmed => Self::Ended,
            Self::Reopened if silence < RECENT => Self::HalfOpen,
            Self::Reopened => Self::Ended,
            Self::Ended | Self::HalfOpen | Self::Open | Self::Closing | Self::Udp => self,
        }
    }
}
