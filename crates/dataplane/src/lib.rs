//! The worker: a burst in, one named fate for each packet, a burst out.
//!
//! ```text
//!           Rx ──► classify ──► lookup ──► decide ──► settle ──► Tx
//!                     │           │          │          │
//!   malformed, ARP, ──┘      connection   new ones   MACs rewritten,
//!   ping, not ours             table      admitted   answers written ◄──► hold
//!
//!           Rx ──► plain TCP segments ──► probe ──► rewrite ───► Tx
//!                  mid-stream, by columns  primary   prepared in the same pass
//!                                          bucket    (nearly all packets)
//! ```
//! The second line is the fast path through the same stages: a mid-stream segment of a connection that is found in its
//! primary bucket needs no decision, and is rewritten at once. Every other packet takes the first line.
//!
//! The worker is generic over the ports ([`Rx`], [`Tx`]) and their buffers, so every rule is tested without DPDK and
//! without root: [`bench`] is a worker between two queues on the heap, and has an example.
//!
//! The packet path never waits, locks, logs, allocates or makes a system call.

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

/// What a turn's packets are decided by: taken once per turn, except for the time, which is taken once per burst.
#[derive(Clone, Copy)]
struct TurnContext<'a> {
    routes: &'a Routes,
    flows: &'a Flows,
    shared: &'a WorkerShared,
    now: Moment,
    tick: Tick,
}

impl TurnContext<'_> {
    /// Sets the time.
    #[inline(always)]
    fn advance(&mut self, now: Moment) {
        (self.now, self.tick) = (now, Tick::from(now));
    }
}
