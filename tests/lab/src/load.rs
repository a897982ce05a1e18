//! Real TCP connections that detect every fault: a lost, doubled, changed or foreign byte, a reset, a stall.
//!
//! Every connection exchanges numbered, checksummed messages: the client sends one, and the server answers with the
//! same payload, its own name and a number that it chose when it accepted the connection. Beside them there are
//! connections of one request, which end in every way that TCP has and use their ports again at once. The program
//! `vipa-load` is both ends; [`Client`] runs as many client processes as the number of connections needs and adds up
//! their reports.

mod announcements;
mod client;
mod datagram;
mod driver;
mod flows;
mod forged;
mod frame;
mod handshakes;
mod report;
mod request;
mod requests;
mod server;
mod spoof;
mod spray;
mod web;

pub use announcements::{Announcement, LISTENING, announcements, read_announcements};
pub use client::{ClientSettings, Voice, run};
pub use datagram::{ask, echo};
pub use driver::{Client, ClientPlan, Fresh, Requests, Server};
pub use flows::{UdpFlows, UdpServer};
pub use forged::{ForgedSettings, forge};
pub use handshakes::{HandshakeSettings, handshakes};
pub use report::{Broken, Report, RequestReport, ServerReport};
pub use request::Ending;
pub use requests::{RequestSettings, request};
pub use server::{ServerSettings, serve};
pub use spoof::{Flags, SpoofSettings, spoof};
pub use spray::{SpraySettings, flood, spray};
pub use web::web;

use std::time::Duration;

/// An exchange that takes longer is a stall: TCP's own repair of a short outage is well below it.
pub const STALL: Duration = Duration::from_secs(3);

/// A connection of one request is late if it has not ended this long after its silence: a lost SYN is repeated after 1
/// s and 3 s, lost data at first after 0.2 s.
pub const LATE: Duration = Duration::from_secs(8);

/// A killed process may still send a packet or two; answers to messages sent so shortly after a mark prove nothing.
pub const SETTLE: Duration = Duration::from_millis(2);

/// How often both ends report.
const REPORT: Duration = Duration::from_millis(200);

/// Nanoseconds of this machine's monotonic clock, the same in every process of the lab.
#[must_use]
pub fn clock() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
    u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
}
