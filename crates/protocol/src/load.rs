//! Load of a target, by its own measurement: sent to every router about once a second, and at once when something
//! changes that affects new connections.
//!
//! All routers receive the same numbers, and compute with them in the same way: so they choose alike.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vipa_model::{PortRange, Protocol};

/// The headroom of an idle host. Few steps, so that a table of weights is not rebuilt for nothing.
pub const FULL_HEADROOM: u8 = 16;
/// Listeners that are reported; those without waiting connections that accept are left out.
pub const MAX_LISTENER_LOADS: usize = 1024;
/// Configured checks of one target.
pub const MAX_CHECKS: usize = 64;
/// Services whose connections are reported.
pub const MAX_SERVED: usize = 4096;
/// Bytes of a check's detail.
pub const MAX_CHECK_DETAIL: usize = 200;

/// Sent by a target to routers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Load {
    pub intent: Intent,
    /// Its share of new connections where weights follow the load, 1 to [`FULL_HEADROOM`].
    pub headroom: u8,
    pub host: HostLoad,
    /// Only listeners with waiting connections, and those that do not accept.
    pub listeners: Vec<ListenerLoad>,
    pub checks: Vec<CheckResult>,
    /// By service.
    pub served: Vec<Served>,
}

/// Results of the TCP connections that clients began to a service, counted since the agent's start. The router counts
/// those that it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Served {
    pub vipa: IpAddr,
    /// As the service was distributed.
    pub ports: PortRange,
    /// Handshakes that became at least half-open here.
    pub begun: u64,
    /// Those of them that were established.
    pub established: u64,
    /// Those of the established ones that the application has accepted in time. They do not still wait, they did not
    /// wait while it accepted none, and it has not ended and left them.
    pub accepted: u64,
}

/// What the target itself requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    #[default]
    Serve,
    /// It is about to stop: no new connections; the present ones are left to end.
    Drain,
}

/// Load of the whole host, not only of Vipa's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostLoad {
    /// Time in which the processors were not idle, in thousandths, over the last second or so.
    pub cpu_permille: u16,
    /// Processes that run or could run, in hundredths per processor.
    pub runnable_percent: u32,
    /// Time in which some process waited for a processor (PSI), in thousandths; 0 where the kernel does not report it.
    pub pressure_permille: u16,
    /// TCP connections that this host has accepted since its start: if it stands still while a router sends SYNs, these
    /// do not arrive.
    pub passive_opens: u64,
    /// Live connections to the VIPAs.
    pub connections: u64,
}

/// An accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListenerLoad {
    pub vipa: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    /// Connections that are established and not accepted; of several listeners on the port, together.
    pub waiting: u32,
    /// How many may wait before the kernel refuses more.
    pub room: u32,
    pub accepting: Accepting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Accepting {
    Yes,
    /// The queue is full: the kernel drops SYNs.
    Full,
    /// Connections wait and none has been accepted for a second or more.
    Stalled,
}

/// The last result of a configured check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckResult {
    #[serde(deserialize_with = "crate::text::name")]
    pub name: String,
    /// The port that it is about; `None`: the whole target.
    pub port: Option<u16>,
    pub passing: bool,
    /// Why it fails, or what it found, in a few words.
    #[serde(deserialize_with = "crate::text::check_detail")]
    pub detail: String,
}

impl Load {
    /// The load before the first measurement: nothing that keeps connections away.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            intent: Intent::Serve,
            headroom: FULL_HEADROOM,
            host: HostLoad::default(),
            listeners: Vec::new(),
            checks: Vec::new(),
            served: Vec::new(),
        }
    }

    /// Whether a router that balances by `earlier` must receive this at once.
    #[must_use]
    pub fn decides_otherwise_than(&self, earlier: &Self) -> bool {
        let troubles = |load: &Self| -> Vec<(IpAddr, Protocol, u16, Accepting)> {
            let troubled = load.listeners.iter().filter(|listener| listener.accepting != Accepting::Yes);
            troubled.map(|listener| (listener.vipa, listener.protocol, listener.port, listener.accepting)).collect()
        };
        let failing = |load: &Self| -> Vec<(String, Option<u16>)> {
            let failing = load.checks.iter().filter(|check| !check.passing);
            failing.map(|check| (check.name.clone(), check.port)).collect()
        };
        self.intent != earlier.intent
            || self.headroom != earlier.headroom
            || troubles(self) != troubles(earlier)
            || failing(self) != failing(earlier)
    }

    /// Whether it is within the limits of this module; a load beyond them is from no agent of ours.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        (1..=FULL_HEADROOM).contains(&self.headroom)
            && self.listeners.len() <= MAX_LISTENER_LOADS
            && self.checks.len() <= MAX_CHECKS
            && self.served.len() <= MAX_SERVED
            && self.checks.iter().all(|check| check.detail.len() <= MAX_CHECK_DETAIL)
    }

    /// The report of one listener; `None`: nothing waits there, and it accepts.
    #[must_use]
    pub fn listener(&self, vipa: IpAddr, protocol: Protocol, port: u16) -> Option<&ListenerLoad> {
        self.listeners
            .iter()
            .find(|listener| (listener.vipa, listener.protocol, listener.port) == (vipa, protocol, port))
    }
}
