//! The worker: a burst in, one named fate for each packet, a burst out.
//!
//! ```text
//!           Rx ──► classify ──► lookup ──► decide ──► settle ──► Tx
//!                     │           │          │          │
//!   malformed, ARP, ──┘      connection   new ones   MACs rewritten,
//!   ping, not ours             table      admitted   answers written ◄──► hold
//! ```
//!
//! Generic over the ports ([`Rx`], [`Tx`]) and their buffers, so every rule is tested without DPDK and without root:
//! [`bench`] is a worker between two heaps of packets.
//!
//! In the packet path nothing waits, locks, logs, allocates or makes a system call.

#![forbid(unsafe_code)]

mod batch;
pub mod bench;
mod capture;
mod classify;
mod decide;
mod family;
mod fragments;
mod hold;
mod idle;
mod io;
mod limit;
mod mask;
mod overload;
mod path;
mod tx_ports;
mod worker;

pub use idle::{IdlePolicy, LONGEST_AS_OWNER};
pub use io::{BURST, Rx, Tx};
pub use worker::{Limits, RxPort, Worker};

use vipa_flow::Tick;
use vipa_handoff::{Flows, Routes, WorkerShared};
use vipa_model::Moment;

/// What a turn sees: taken once, the same for all its packets but for the time, which is a burst's.
#[derive(Clone, Copy)]
struct TurnContext<'a> {
    routes: &'a Routes,
    flows: &'a Flows,
    shared: &'a WorkerShared,
    now: Moment,
    tick: Tick,
}

impl TurnContext<'_> {
    /// The time is `now`.
    #[inline(always)]
    fn advance(&mut self, now: Moment) {
        (self.now, self.tick) = (now, Tick::from(now));
    }
}
