//! The plan, as tables. A change here is a change of the architecture: change ARCHITECTURE.md with it and say why.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Thinks: time, chance and input come in as arguments, what it wants done goes out as data.
    Pure,
    /// Holds danger: atomics, foreign memory, drivers.
    Guarded,
    /// Holds everything that crosses between control and workers.
    Door,
    /// Waits: sockets, timers, threads, files.
    Shell,
    /// Tests, the simulator, this.
    Dev,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pure => "pure",
            Self::Guarded => "guarded",
            Self::Door => "the door",
            Self::Shell => "a shell",
            Self::Dev => "for development",
        })
    }
}

/// One package: `vipa-NAME`, in `crates/NAME` or `tests/NAME`; `perf` stands beside them.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub name: &'static str,
    pub floor: u8,
    pub kind: Kind,
    /// Its tests may use these too, and no more.
    pub may_use: &'static [&'static str],
}

impl Room {
    const fn new(name: &'static str, floor: u8, kind: Kind, may_use: &'static [&'static str]) -> Self {
        Self { name, floor, kind, may_use }
    }
}

use Kind::{Dev, Door, Guarded, Pure, Shell};

/// Every room, from the ground up.
#[rustfmt::skip]
pub const ROOMS: &[Room] = &[
    Room::new("packet",    0, Pure,    &[]),
    Room::new("model",     0, Pure,    &[]),
    Room::new("dpdk-sys",  0, Guarded, &[]),
    Room::new("sync",      1, Guarded, &["model"]),
    Room::new("balance",   1, Pure,    &["model"]),
    Room::new("protocol",  1, Pure,    &["model"]),
    Room::new("dpdk",      1, Guarded, &["dpdk-sys", "packet"]),
    Room::new("cluster",   2, Pure,    &["model", "protocol"]),
    Room::new("flow",      2, Guarded, &["model"]),
    Room::new("transport", 2, Shell,   &["model", "protocol"]),
    Room::new("metrics",   2, Shell,   &["model"]),
    Room::new("doctor",    3, Shell,   &["model", "transport"]),
    Room::new("handoff",   3, Door,    &["balance", "flow", "model", "packet", "sync"]),
    Room::new("web",       3, Shell,   &["model", "protocol", "transport"]),
    Room::new("agent",     4, Shell,   &["cluster", "doctor", "metrics", "model", "protocol", "transport"]),
    Room::new("cli",       4, Shell,   &["doctor", "model", "protocol", "transport"]),
    Room::new("dataplane", 4, Shell,   &["balance", "flow", "handoff", "model", "packet", "sync"]),
    Room::new("control",   4, Shell,   &["balance", "cluster", "doctor", "flow", "handoff", "metrics", "model", "packet", "protocol", "sync", "transport"]),
    Room::new("router",    5, Shell,   &["control", "dataplane", "doctor", "dpdk", "flow", "handoff", "model", "packet", "sync", "web"]),
    Room::new("hostile",   2, Dev,     &["model", "protocol"]),
    Room::new("sim",       5, Dev,     &["balance", "cluster", "dataplane", "flow", "handoff", "hostile", "model", "packet", "protocol", "sync"]),
    Room::new("lab",       5, Dev,     &["cluster", "hostile", "model", "protocol", "transport"]),
    Room::new("instructions", 5, Dev,  &["balance", "dataplane", "flow", "handoff", "model", "packet"]),
    Room::new("perf",      6, Dev,     &["balance", "cluster", "control", "dataplane", "dpdk", "flow", "handoff", "lab", "model", "packet", "protocol", "sync", "transport"]),
    Room::new("tidy",      0, Dev,     &[]),
];

/// The room of this name.
#[must_use]
pub fn room(name: &str) -> Option<&'static Room> {
    ROOMS.iter().find(|room| room.name == name)
}

/// Rooms in crates/.
pub const MOST_ROOMS: usize = 19;
/// Lines of a source file.
pub const MOST_LINES: usize = 700;

/// Words in a room's name that name no noun.
pub const NAMES_FOR_ANYTHING: &[&str] =
    &["common", "util", "utils", "core", "types", "misc", "shared", "helper", "helpers", "base", "lib"];

/// Rooms besides the guarded ones that may say `unsafe`, and what for. Clippy demands the argument at each place.
pub const MAY_BE_UNSAFE: &[(&str, &str)] = &[
    ("agent", "system calls of netlink sockets that no safe wrapper covers"),
    ("router", "the system call that makes a TUN interface"),
];

/// The only files that rename files, and why they may.
pub const MAY_RENAME: &[(&str, &str)] = &[
    ("crates/transport/src/durable.rs", "it is what syncs"),
    ("crates/transport/src/state/journal.rs", "a journal that is full moves out of the way of the next"),
    ("crates/control/src/admin/recorder.rs", "a recording that is complete moves out of the way of the next"),
];

/// The only rooms that know memory orderings.
pub const MAY_NAME_ATOMICS: &[&str] = &["sync", "flow"];

/// How an atomic is named. A trailing `*` stands for the rest of a word.
pub const ATOMICS: &[&str] = &["atomic", "Atomic*", "portable_atomic"];

/// What a pure room does not say. Words of a path are joined by `::`.
pub const NOT_PURE: &[&str] = &[
    "tokio",
    "async",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "ToSocketAddrs",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "Mutex",
    "RwLock",
    "rand",
    "getrandom",
    "HashMap",
    "HashSet",
    "println",
    "eprintln",
    "tracing",
];

/// What a pure room does not depend on.
pub const NOT_PURE_CRATES: &[&str] = &[
    "tokio",
    "quinn",
    "mio",
    "socket2",
    "libc",
    "nix",
    "rand",
    "getrandom",
    "fastrand",
    "parking_lot",
    "crossbeam",
    "tracing",
    "rtnetlink",
    "core_affinity",
    "async-trait",
    "futures",
];

/// Where packets are.
pub const WORKERS: &[&str] = &["dataplane", "packet", "flow", "balance"];

pub const NOT_IN_WORKERS: &[&str] = &[
    "tokio",
    "async",
    "Mutex",
    "RwLock",
    "Condvar",
    "tracing",
    "log::*",
    "println",
    "eprintln",
    "std::fs",
    "std::net::Tcp*",
    "UdpSocket",
];

pub const NOT_IN_WORKERS_CRATES: &[&str] = &["tokio", "tracing", "log", "parking_lot", "vipa-dpdk", "vipa-control"];

/// Files of theirs that run before there are packets, and what they do then.
pub const BEFORE_PACKETS: &[(&str, &str)] =
    &[("crates/flow/src/memory.rs", "asks once how much memory there is, to refuse a table that would not fit")];

/// Names of types, functions and modules that have been replaced by a term of the field, and that term. A room that still has one is
/// listed below.
#[rustfmt::skip]
pub const REPLACED_NAMES: &[(&str, &str)] = &[
    // The packet path.
    ("Heads", "HeaderColumns"),
    ("goes_on", "is_mid_stream"),
    ("readdress", "rewrite_macs"),
    ("Wrappers", "TunnelHeaders"),
    ("Outer", "TunnelEndpoints"),
    ("Cut", "Fragmenter"),
    ("Scene", "TurnContext"),
    ("Lane", "FamilyBatch"),
    ("Lanes", "Batch"),
    ("lanes", "batch"),
    ("Places", "BurstMask"),
    ("places", "mask"),
    ("Inlet", "RxPort"),
    ("Outlet", "TxPort"),
    ("Outlets", "TxPorts"),
    ("outlet", "tx_ports"),
    ("Express", "L2Rewrite"),
    ("express", "l2_rewrite"),
    ("How", "an enum that says of what, such as RewriteAction"),
    ("Via", "ForwardingAction"),
    ("Way", "Path"),
    ("Ways", "Paths"),
    ("way", "path"),
    ("ways", "paths"),
    ("make_ready", "prepare"),
    ("Ready", "Prepared"),
    ("Stuck", "NotForwarded"),
    ("seek", "prefetch"),
    ("Sought", "HashedKey"),
    ("glance", "probe"),
    ("Glance", "ProbeHit"),
    ("approach_other", "prefetch_secondary"),
    ("Spots", "BucketPair"),
    ("Tally", "TableCounters, or what it counts"),
    ("hear", "refresh"),
    ("is_news", "is_stale"),
    ("Settler", "VerdictApplier"),
    ("settle", "apply"),
    ("Lesson", "FragmentMapping"),
    ("Learnt", "FragmentEntry"),
    ("Desk", "WorkerShared"),
    ("Door", "Channel"),
    ("door", "channel"),
    ("Cell", "CounterId, or AtomicWords"),
    ("Pressure", "Overload"),
    ("pressure", "overload"),
    ("openings", "new_flow_budget"),
    // Ownership and control.
    ("Census", "ConnectionCounts"),
    ("census", "connection_counts"),
    ("Bequest", "TableTransfer"),
    ("bequest", "table_transfer"),
    ("Sweep", "StaleSweep"),
    ("Mirror", "TableReplica"),
    ("mirror", "table_replica"),
    ("Ledger", "DecisionLog"),
    ("ledger", "decision_log"),
    ("Tenure", "Ownership"),
    ("tenure", "ownership"),
    ("Electorate", "Membership"),
    ("electorate", "membership"),
    ("Precedence", "Succession"),
    ("precedence", "succession"),
    ("Cue", "Input"),
    ("Outward", "Advertiser"),
    ("outward", "advertiser"),
    ("Condition", "SelfCheck"),
    ("Fitness", "Eligibility"),
    ("fitness", "eligibility"),
    ("Reach", "Reachability"),
    ("Absences", "AgentTimeouts"),
    ("LastLife", "RestartGap"),
    ("last_life", "restart_gap"),
    ("Asking", "Query"),
    ("asking", "query"),
    ("Finding", "ProbeResult"),
    ("Found", "ProbeResult"),
    ("Ask", "QueryRequest"),
    ("Told", "QueryReply"),
    ("Kept", "DecisionAck"),
    ("Retake", "TakebackRequest"),
    ("NotYet", "YieldRefused"),
];

/// Rooms that still have replaced names. The list only gets shorter.
pub const NOT_RENAMED_YET: &[&str] = &[];

/// Names that several public types still have, and how many. The list only gets shorter.
#[rustfmt::skip]
pub const DOUBLED_TYPES: &[(&str, usize)] = &[
    ("Change", 2),
    ("Check", 2),
    ("Claim", 2),
    ("Cluster", 2),
    ("Connections", 2),
    ("Counter", 2),
    ("Counters", 2),
    ("Decisions", 2),
    ("Distribution", 2),
    ("Event", 2),
    ("Failure", 2),
    ("Kind", 2),
    ("Note", 3),
    ("Outbox", 2),
    ("Outcome", 2),
    ("Output", 2),
    ("Part", 2),
    ("Probe", 2),
    ("Question", 2),
    ("Record", 2),
    ("Refusal", 2),
    ("Router", 2),
    ("Served", 2),
    ("Settings", 3),
    ("Stage", 2),
    ("Stance", 2),
    ("Stored", 2),
    ("Table", 2),
    ("Takeback", 2),
    ("Target", 2),
    ("TargetStatus", 2),
    ("Timing", 2),
    ("Verdict", 2),
    ("VipaSettings", 2),
    ("VipaStatus", 2),
];
