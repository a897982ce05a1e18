//! Packets that an operator looks at: begun by one request, read by others, ended by the time, the number, or a request.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Packets captured when nothing is said of it, and at most.
pub const DEFAULT_CAPTURED: u64 = 1_000;
pub const MAX_CAPTURED: u64 = 1_000_000;
/// Seconds that a capture lasts at most.
pub const MAX_CAPTURE_S: u64 = 3_600;

/// What is captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CaptureFilter {
    /// Packets from and to this VIPA only.
    pub vipa: Option<IpAddr>,
    /// Names of fates, or patterns of them with `*`, separated by commas; empty: all.
    pub fates: String,
    /// Packets in and out, 1 to [`MAX_CAPTURED`].
    pub limit: u64,
    /// 1 to [`MAX_CAPTURE_S`].
    pub seconds: u64,
}

/// What was captured since it was last read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Captured {
    pub packets: Vec<CapturedPacket>,
    /// Nothing more will come.
    pub is_over: bool,
    /// Packets that were not kept, because they came faster than they were read.
    pub lost: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CapturedPacket {
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
    pub port: String,
    /// It left the router by the port; otherwise it came in by it.
    pub is_outgoing: bool,
    /// The counter of the fate of the packet that came in, `held`, or `unknown`.
    pub fate: String,
    /// Bytes of the frame, of which `frame` may have the beginning only.
    pub length: u32,
    /// Hexadecimal digits.
    pub frame: String,
}
