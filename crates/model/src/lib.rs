//! The nouns of Vipa, and the rules that make a configuration valid. Pure: no clock, socket, file or thread.

#![forbid(unsafe_code)]

pub mod calendar;
mod check;
mod choice;
pub mod config;
mod failure;
mod nouns;
mod path;
mod printable;
mod service_settings;
mod throttle;
mod time;
mod voters;

pub use calendar::rfc3339_seconds;
pub use check::{Check, Pace, Probe, Verdict};
pub use choice::{Agentless, Choice, Question, Weights};
pub use failure::with_causes;
pub use nouns::{
    Balance, Connection, ConnectionState, Delivery, EntryState, Epoch, Forwarding, Incarnation, InvalidNodeName,
    MAX_PATHS, MAX_VIPAS, Mac, NodeName, Orphans, PortId, PortRange, Protocol, Rank, Service, Sources, Stance,
    TargetId, Unserved, VipaId, is_host_address,
};
pub use path::{Path, PathLookup, ServicePath, TargetPath, find_path};
pub use printable::printable;
pub use service_settings::listed;
pub use throttle::Throttle;
pub use time::Moment;
pub use voters::Voters;
