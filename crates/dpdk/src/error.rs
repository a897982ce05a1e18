//! What can go wrong, and what to do about it.

use thiserror::Error;

/// Each is one sentence that names the remedy. `log` is what DPDK itself said, `; ` between its lines.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Error {
    #[error("DPDK starts once in a process, and it has been started before")]
    StartedBefore,
    #[error(
        "{wanted_mb} MB of hugepages are asked for and {free_mb} MB are free: reserve more with \
         dpdk-config/hugepages, or set `dpdk.memory = \"no-huge\"`"
    )]
    NoHugepages { wanted_mb: u32, free_mb: u64 },
    #[error(
        "no hugetlbfs that this process may write is mounted: run dpdk-config/hugepages as root, or set `dpdk.memory = \"no-huge\"`"
    )]
    HugepagesNotMounted,
    #[error("another process runs DPDK with the file prefix {prefix}: give each its own `dpdk.file_prefix`")]
    PrefixTaken { prefix: String },
    #[error("an option for DPDK holds a NUL character: {option:?}")]
    Option { option: String },
    #[error("DPDK does not start ({reason}): {log}")]
    Start { reason: String, log: String },
    #[error("DPDK has no room for another thread ({reason})")]
    Thread { reason: String },

    #[error(
        "a pool of {count} packets of {room} bytes does not fit in DPDK's memory ({reason}): raise `dpdk.memory_mb`"
    )]
    PoolMemory { count: u32, room: u16, reason: String },
    #[error("the pool {name:?} cannot be made ({reason})")]
    Pool { name: String, reason: String },

    #[error(
        "{device:?} is no device: write a PCI address such as \"0000:03:00.0\" or a virtual device such as \"net_af_packet0,iface=eth0\""
    )]
    DeviceName { device: String },
    #[error("{device}: there is no network interface {interface} here; `ip link` lists them")]
    NoInterface { device: String, interface: String },
    #[error("{device}: say which network interface to use: \"{name},iface=eth0\"")]
    NoInterfaceNamed { device: String, name: String },
    #[error("{device}: needs root or {capability}")]
    NotPermitted { device: String, capability: &'static str },
    #[error("{device}: /dev/net/tun is missing: hand it to the container (--device /dev/net/tun) or create it")]
    NoTun { device: String },
    #[error(
        "{device}: {path} is missing: load the kernel's module (modprobe vhost-net), or set `kernel_driver = \"tap\"`"
    )]
    NoVhost { device: String, path: String },
    #[error("{device}: no such PCI device; `dpdk-devbind.py --status` lists them")]
    NoPciDevice { device: String },
    #[error(
        "{device}: bound to the kernel driver {driver}: bind it with `dpdk-devbind.py --bind=vfio-pci {device}` (dpdk-config/README.md)"
    )]
    NotBound { device: String, driver: String },
    #[error(
        "{device}: DPDK's driver {driver} is not installed: install the Debian package whose name begins with {package}"
    )]
    NoDriver { device: String, driver: String, package: String },
    #[error("{device}: the driver does not take it ({reason}): {log}")]
    Probe { device: String, reason: String, log: String },
    #[error("{device}: this process has opened it already")]
    Opened { device: String },
    #[error("{device}: {wanted} queues are asked for and the driver has {most}{hint}")]
    Queues { device: String, wanted: u16, most: u16, hint: &'static str },
    #[error(
        "{device}: frames are spread over {sockets} sockets (qpairs) and {queues} would be read: \
         set `queues = {sockets}`, or qpairs={queues}"
    )]
    UnreadQueues { device: String, sockets: u16, queues: u16 },
    #[error("{device}: an MTU of {mtu} is asked for, {lowest} to {highest} is possible")]
    Mtu { device: String, mtu: u16, lowest: u16, highest: u16 },
    #[error("{device}: cannot {step} ({reason}): {log}")]
    Port { device: String, step: &'static str, reason: String, log: String },
}

/// The text of an errno; DPDK returns some negated.
pub(crate) fn reason(errno: i32) -> String {
    // SAFETY: rte_strerror accepts every number and returns a terminated string in a buffer of this thread.
    let text = unsafe { vipa_dpdk_sys::rte_strerror(errno.abs()) };
    // SAFETY: see above; the text is copied before this thread can call rte_strerror again.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// The text of this thread's rte_errno.
pub(crate) fn last_reason() -> String {
    // SAFETY: reads a variable of this thread.
    reason(unsafe { vipa_dpdk_sys::vipa_errno() })
}
