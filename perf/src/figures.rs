//! The figures, each a module of its own. A new one is a module and a line here.

mod admitting;
mod agent;
mod flood;
mod forwarding;
mod idling;
mod latency;
mod rebuilding;
mod table;
mod takeover;

use crate::figure::Figure;

pub(crate) const ALL: [Figure; 12] = [
    Figure { id: "P1", what: "forwarding, direct return, by number of connections", measure: forwarding::flows },
    Figure { id: "P2", what: "forwarding through tunnels and nat", measure: forwarding::paths },
    Figure { id: "P3", what: "forwarding of IPv6", measure: forwarding::ipv6 },
    Figure { id: "P4", what: "the connection table: lookups a second and core, bytes", measure: table::measure },
    Figure { id: "P5", what: "new connections a second and core", measure: admitting::measure },
    Figure { id: "P6", what: "established connections during a SYN flood", measure: flood::measure },
    Figure { id: "P7", what: "rebuilding from reports, while forwarding", measure: rebuilding::measure },
    Figure { id: "P8", what: "takeover, from the kill to the first answer", measure: takeover::measure },
    Figure { id: "P9", what: "added latency, one packet in flight", measure: latency::measure },
    Figure { id: "P10", what: "two workers on two cores", measure: forwarding::two_workers },
    Figure { id: "P11", what: "the agent: a connection's life, bytes each, a snapshot", measure: agent::measure },
    Figure { id: "P12", what: "a sleeping worker's share of a core", measure: idling::measure },
];
