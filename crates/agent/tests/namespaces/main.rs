//! The agent as it is run, against this machine's kernel, in a network namespace of its own for each test:
//!
//! ```text
//!   ┌ a network namespace ─────────────────────────────────────────────┐
//!   │  lo  10.9.0.0/24 ── clients and routers      192.0.2.10 ── VIPA  │
//!   │  Router (the test, over real links) ◄── vipa-agent               │
//!   │  clients and servers (the test's sockets)                        │
//!   └──────────────────────────────────────────────────────────────────┘
//! ```
//! A namespace belongs to a thread of the test and is gone with it and the agent; nothing is left on the machine.

mod addresses;
mod checks;
mod connections;
mod devices;
mod drain;
mod host;
mod links;
mod listeners;
mod load;
mod many;
mod ring;
mod router;
mod servers;
mod sockets;
mod systemd;
mod trust;
mod tunnels;
mod upgrades;
