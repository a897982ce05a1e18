//! Ports and workers, by what their drivers and they themselves count. All counts are since the start of the router.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortList {
    pub ports: Vec<PortStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortStatus {
    /// As the configuration calls it; the interface's name for a `kernel_interface`.
    pub name: String,
    pub is_kernel_interface: bool,
    /// `None`: the driver cannot say.
    pub up: Option<bool>,
    /// Packet buffers (mbufs) that are free, and all there are.
    pub buffers_free: u32,
    pub buffers: u32,
    /// `None`: the driver does not count.
    pub statistics: Option<PortStatistics>,
}

/// What a port's driver has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortStatistics {
    pub received: u64,
    pub received_bytes: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    /// Dropped by the NIC, because no worker took them from a receive queue in time.
    pub missed: u64,
    /// Frames that were damaged.
    pub receive_errors: u64,
    pub send_errors: u64,
    /// Times that no buffer was free for a received packet.
    pub no_buffer: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkerList {
    pub uptime_ms: u64,
    pub workers: Vec<WorkerStatus>,
}

/// One worker. Its busy share over a time is what `busy_ns` grew by, divided by that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkerStatus {
    pub worker: u64,
    /// Turns of its loop, and those that brought packets.
    pub turns: u64,
    pub busy_turns: u64,
    /// Nanoseconds in turns that brought packets, as it takes time by its own clock at the start of each turn.
    pub busy_ns: u64,
    /// Packets taken from its receive queues.
    pub received: u64,
}
