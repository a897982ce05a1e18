//! DPDK as safe Rust: `unsafe` ends here.
//!
//! ```text
//! Eal ──► Pool ──► EthPort::open ──┬──► EthPort                one handle of each port: address, link status, statistics
//!  │                               ├──► RxQueue, RxQueue, …    one owner each: bursts take `&mut self`
//!  │                               └──► TxQueue, TxQueue, …
//!  └───► register_thread() ──► RegisteredThread                a Rust thread with DPDK's per-thread caches
//! ```
//! Each object keeps alive what it depends on, so objects may be dropped in any order: a port is stopped and closed when its
//! [`EthPort`] and all its queues are gone, and DPDK ends after the last port, pool and thread.
//!
//! An [`Mbuf`] has exactly one owner. What a driver takes in [`TxQueue::burst`] leaves the caller's vector; what it refuses stays.

mod device;
mod eal;
mod error;
mod log;
mod mbuf;
mod memory;
mod pool;
mod port;
mod queue;

pub use device::Device;
pub use eal::{Eal, EalOptions, RegisteredThread};
pub use error::Error;
pub use log::{Level, set_sink};
pub use mbuf::{Mbuf, free_all};
pub use memory::EalMemory;
pub use pool::{HEADROOM, Pool, PoolOptions};
pub use port::{DevicePresence, EthPort, LinkStatus, OpenPort, PortOptions, RssConfig, Stats};
pub use queue::{RxQueue, TxQueue};

/// Packets a burst moves at most.
pub const BURST: usize = 32;

/// The packets of one burst.
pub type Burst = arrayvec::ArrayVec<Mbuf, BURST>;

/// The installed DPDK, such as `DPDK 22.11.11`.
#[must_use]
pub fn version() -> String {
    // SAFETY: takes nothing, and may be called before rte_eal_init.
    let text = unsafe { vipa_dpdk_sys::rte_version() };
    // SAFETY: rte_version returns a static terminated string.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}
