//! Links between nodes: QUIC with mutual TLS against the cluster's own authority.
//!
//! ```text
//!            Sender::send                                         Receiver::recv
//!   Beat, BeatAck ───────► datagrams ═══════╗         ╔═══════► beats ───┐ first
//!   other messages ──────► orders stream ═══╬══ UDP ══╬═══════► urgent ──┤ when no beat waits
//!   Connections, Table ──► bulk stream ═════╝         ╚═══════► bulk ────┘ when nothing else does
//! ```
//! Datagrams overtake orders, and orders bulk, at both ends: neither the lists of a thousand VIPAs nor a report of a
//! million connections delays a beat. Messages keep their order within one stream, but not between streams. There is
//! one link to a peer at most, and the newest incarnation has it. Everything is bounded: a peer that does not keep up
//! loses its link and gets a new one, on which the cluster's log positions make up for the loss. `probe` sends requests
//! over the same network to hosts that are no nodes. `service_manager` reports a daemon's state to systemd.
//!
//! ```no_run
//! use std::path::Path;
//! use vipa_transport::{Identity, IdentityError};
//!
//! /// Each node has three files that `vipactl pki` makes.
//! fn load() -> Result<Identity, IdentityError> {
//!     let folder = Path::new("/etc/vipa/pki");
//!     Identity::load(&folder.join("ca.pem"), &folder.join("r1.pem"), &folder.join("r1.key"))
//! }
//! ```

#![forbid(unsafe_code)]

pub mod access;
mod admission;
mod certificate;
mod certificate_expiry;
pub mod clients;
pub mod durable;
mod endpoint;
mod expiry;
mod handshakes;
mod identity;
mod inbox;
mod key;
mod link;
pub mod pki;
pub mod probe;
mod reach;
mod registry;
mod renewal;
pub mod service_manager;
pub mod state;

pub use admission::Admission;
pub use certificate::{CertifiedRoles, RoleError};
pub use certificate_expiry::CertificateExpiry;
pub use endpoint::{StartError, Timing, TransportSettings, start};
pub use expiry::{CertificateInfo, Expiry, WARNING_DAYS, expiry};
pub use identity::{Identity, IdentityError};
pub use inbox::{LinkEvent, Receiver, Refusal};
pub use key::key_digest;
pub use reach::{ReachResult, reach};
pub use registry::{Sender, Statistics};
