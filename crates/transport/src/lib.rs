//! Links between nodes: QUIC with mutual TLS against the cluster's own authority.
//!
//! ```text
//!            Sender::send                                         Receiver::recv
//!   Beat, BeatAck ───────► datagrams ═══════╗         ╔═══════► beats ───┐ first
//!   other messages ──────► orders stream ═══╬══ UDP ══╬═══════► urgent ──┤ when no beat waits
//!   Connections, Table ──► bulk stream ═════╝         ╚═══════► bulk ────┘ when nothing else does
//! ```
//! Datagrams overtake orders, and orders bulk, at both ends: neither the lists of a thousand VIPAs nor a report of a million
//! connections delays a beat. Within one
//! stream messages keep their order; between streams they do not. There is one link to a peer at most, and the newest
//! incarnation has it. Everything is bounded: a peer that does not keep up loses its link and gets a new one, which
//! the cluster's positions make good. `probe` asks, over the same network, what is no node. `service_manager` tells systemd how a
//! daemon is.

#![forbid(unsafe_code)]

pub mod access;
mod admission;
mod certificate;
pub mod clients;
pub mod durable;
mod endpoint;
mod handshakes;
mod identity;
mod inbox;
mod key;
mod link;
pub mod pki;
pub mod probe;
mod registry;
mod renewal;
pub mod service_manager;
pub mod state;

pub use admission::Admission;
pub use certificate::{CertifiedRoles, RoleError};
pub use endpoint::{StartError, Timing, TransportSettings, start};
pub use identity::{Identity, IdentityError};
pub use inbox::{LinkEvent, Receiver, Refusal};
pub use key::key_digest;
pub use registry::{Sender, Statistics};
