//! An entry's word: everything about a connection but its addresses and ports.
//!
//! ```text
//!  63            48 47            32 31           19 18            5   4    3    0
//! ┌────────────────┬────────────────┬───────────────┬───────────────┬──────┬───────┐
//! │ life (16)      │ tick (16)      │ service (13)  │ target (14)   │moving│ state │
//! └────────────────┴────────────────┴───────────────┴───────────────┴──────┴───────┘
//! ```
//!
//! `life` counts the connections that have been in this slot. If two readings of the word have the same life and both
//! have a key, the key read in between belongs to them.

use vipa_model::TargetId;

use crate::{key::Packed, tick::Tick};

/// Targets that the table distinguishes. A connection of a `TargetId` at or beyond this number is not stored.
pub const MAX_TARGETS: u16 = 1 << 14;

/// What this router holds about a connection: by packets that passed, or by its target's reports.
///
/// ```text
///              SYN            client's segment           target: holds it
///   (nothing) ─────► HalfOpen ────────────────► Open ─────────────────────► Confirmed ◄──────┐
///                       ▲ ▲                      │ FIN, RST                   │    │ SYN     │ 4 s later: a segment
///                       │ │ SYN                  ▼         target: holds it   │    ▼         │
///                       │ └────────────────── Closing ───────────────────────►│  Reopened ───┘
///                       │                                                     │    │
///                       │ SYN             target: no longer holds it          │    │ target: no longer holds it
///                       ├───────────── Ended ◄────────────────────────────────┘    │
///                       └──────────────────────────────────────────────────────────┘
/// ```
/// Only a target's report makes an entry `Confirmed`, and only a report ends that; packets never do. So a target's
/// confirmed entries are at every moment those that its log names, up to the position that this router has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// The target held it and has reported that it no longer does. Late segments still go to that target, which answers
    /// them itself (RFC 9293 §3.10.7.1). A SYN begins the next connection of the same addresses and ports.
    Ended = 2,
    /// A SYN was admitted here.
    HalfOpen = 3,
    /// The target holds it, and a SYN has passed since. Its client may be about to begin the next connection of the
    /// same addresses and ports, so the next end that the target reports is not the end of this entry.
    Reopened = 4,
    /// The client sent segments after its SYN; no target has reported it.
    Open = 5,
    /// The target reports that it holds it, whatever has been seen on the wire.
    Confirmed = 6,
    /// A FIN or RST has passed; no target has reported it.
    Closing = 7,
    Udp = 8,
}

impl FlowState {
    pub const ALL: [Self; 7] =
        [Self::Ended, Self::HalfOpen, Self::Reopened, Self::Open, Self::Confirmed, Self::Closing, Self::Udp];

    /// Whether a target has reported the connection and not its end.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, Self::Confirmed | Self::Reopened)
    }

    /// Dense, from 0.
    pub(crate) fn index(self) -> usize {
        self as usize - Self::Ended as usize
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

const STATE: u64 = 0b1111;
const EMPTY: u64 = 0;
const PENDING: u64 = 1;
const CLAIMED: u64 = 15;
const MOVING: u64 = 1 << 4;
const TARGET_AT: u32 = 5;
const SERVICE_AT: u32 = 19;
const TICK_AT: u32 = 32;
const LIFE_AT: u32 = 48;
const TARGET: u64 = (1 << 14) - 1;
const SERVICE: u64 = (1 << 13) - 1;
const TICK: u64 = 0xffff;
const LIFE: u64 = !0 << LIFE_AT;

impl Word {
    /// The next life in the slot that held `self`: owned by the claimant alone, its key not yet written.
    pub(crate) fn claimed<W>(self, packed: &Packed<W>, target: TargetId, now: Tick) -> Self {
        let life = (self.0 & LIFE).wrapping_add(1 << LIFE_AT);
        let tick = u64::from(now.0 as u16) << TICK_AT;
        Self(life | tick | packed.service << SERVICE_AT | u64::from(target.0) << TARGET_AT | CLAIMED)
    }

    /// The next life in the slot that held `self`, with everything that `other` states about its connection.
    pub(crate) fn claimed_like(self, other: Self) -> Self {
        let life = (self.0 & LIFE).wrapping_add(1 << LIFE_AT);
        Self(life | other.0 & !(LIFE | MOVING | STATE) | CLAIMED)
    }

    /// The same life, its key written.
    pub(crate) fn announced(self) -> Self {
        Self(self.0 & !STATE | PENDING)
    }

    /// The word after this life: an empty slot.
    pub(crate) fn emptied(self) -> Self {
        Self(self.0 & LIFE)
    }

    pub(crate) fn with_state(self, state: FlowState) -> Self {
        Self(self.0 & !STATE | state as u64)
    }

    pub(crate) fn with_target(self, target: TargetId) -> Self {
        Self(self.0 & !(TARGET << TARGET_AT) | u64::from(target.0) << TARGET_AT)
    }

    pub(crate) fn with_tick(self, now: Tick) -> Self {
        Self(self.0 & !(TICK << TICK_AT) | u64::from(now.0 as u16) << TICK_AT)
    }

    pub(crate) fn moving(self) -> Self {
        Self(self.0 | MOVING)
    }

    pub(crate) fn settled(self) -> Self {
        Self(self.0 & !MOVING)
    }

    pub(crate) fn is_moving(self) -> bool {
        self.0 & MOVING != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 & STATE == EMPTY
    }

    pub(crate) fn is_pending(self) -> bool {
        self.0 & STATE == PENDING
    }

    /// Pending or live: the slot's key is this life's.
    pub(crate) fn has_key(self) -> bool {
        !matches!(self.0 & STATE, EMPTY | CLAIMED)
    }

    /// `None`: not live.
    #[inline]
    pub(crate) fn state(self) -> Option<FlowState> {
        match self.0 & STATE {
            2 => Some(FlowState::Ended),
            3 => Some(FlowState::HalfOpen),
            4 => Some(FlowState::Reopened),
            5 => Some(FlowState::Open),
            6 => Some(FlowState::Confirmed),
            7 => Some(FlowState::Closing),
            8 => Some(FlowState::Udp),
            _ => None,
        }
    }

    /// Live, and a connection to this service.
    #[inline(always)]
    pub(crate) fn is_live_of(self, service: u64) -> bool {
        let is_live =
            (self.0 & STATE).wrapping_sub(FlowState::Ended as u64) <= FlowState::Udp as u64 - FlowState::Ended as u64;
        is_live && self.service() == service
    }

    /// [`is_live_of`](Self::is_live_of), and neither half-open, reopened nor ended: a segment changes only its
    /// last-seen tick.
    #[inline(always)]
    pub(crate) fn is_under_way(self, service: u64) -> bool {
        let first = service << SERVICE_AT | FlowState::Open as u64;
        (self.0 & (SERVICE << SERVICE_AT | STATE)).wrapping_sub(first) <= FlowState::Udp as u64 - FlowState::Open as u64
    }

    #[inline]
    pub(crate) fn service(self) -> u64 {
        self.0 >> SERVICE_AT & SERVICE
    }

    #[inline]
    pub(crate) fn target(self) -> TargetId {
        TargetId((self.0 >> TARGET_AT & TARGET) as u16)
    }

    #[inline]
    pub(crate) fn tick(self) -> u16 {
        (self.0 >> TICK_AT) as u16
    }

    #[inline]
    pub(crate) fn same_life(self, other: Self) -> bool {
        (self.0 ^ other.0) & LIFE == 0
    }
}
