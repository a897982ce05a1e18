//! A port: opened whole, then split into queues that have one owner each.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

use vipa_dpdk_sys as sys;

use crate::error::reason;
use crate::pool::FRAME_OVERHEAD;
use crate::{Device, Error, Pool, RxQueue, TxQueue, log};

/// How a port is opened.
#[derive(Clone, Debug)]
pub struct PortOptions {
    pub device: Device,
    pub rx_queues: u16,
    pub tx_queues: u16,
    /// Rounded to what the driver accepts.
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    /// Bytes of an IP packet; `None` keeps the driver's.
    pub mtu: Option<u16>,
    pub promiscuous: bool,
    /// Receive all multicast frames: IPv6 neighbour solicitations and routing daemons use multicast.
    pub all_groups: bool,
}

impl PortOptions {
    /// Ordinary settings: 1,024 descriptors, the driver's MTU, neither promiscuous nor in every group.
    #[must_use]
    pub fn new(device: &Device, rx_queues: u16, tx_queues: u16) -> Self {
        Self {
            device: device.clone(),
            rx_queues,
            tx_queues,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            promiscuous: false,
            all_groups: false,
        }
    }
}

/// A port that runs, and its queues in order.
#[derive(Debug)]
pub struct OpenPort {
    pub port: EthPort,
    pub rx: Vec<RxQueue>,
    pub tx: Vec<TxQueue>,
}

/// A handle of an open port, for queries while workers use its queues. Clones are handles of the same port.
#[derive(Clone, Debug)]
pub struct EthPort(Arc<Owned>);

#[derive(Debug)]
pub(crate) struct Owned {
    id: u16,
    device: Device,
    /// The kernel's number of the interface beneath, if there is one.
    interface_index: Option<u32>,
    mac: [u8; 6],
    pool: Pool,
    verifies_header_sums: bool,
}

/// The state of a port's link. `megabits` is `None` when the driver does not know the speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    pub up: bool,
    pub megabits: Option<u32>,
    pub full_duplex: bool,
}

/// Receive-side scaling of a port: how its hardware distributes packets over the receive queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RssConfig {
    /// Key of the Toeplitz hash over addresses and ports.
    pub key: Vec<u8>,
    /// The redirection table (RETA): the queue of each hash, by its low bits. Empty where the driver does not show it.
    pub queues: Vec<u16>,
}

/// A port's own counts since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub received: u64,
    pub sent: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Lost because nobody fetched them in time.
    pub missed: u64,
    pub receive_errors: u64,
    pub send_errors: u64,
    /// Lost because the pool was empty.
    pub no_buffer: u64,
}

/// The key of the hash that deals packets to queues: ours, and not the driver's, so that every port deals a connection alike
/// and both directions of it to one queue (16 bits repeated; Woo and Park, "Scalable TCP Session Monitoring with Symmetric
/// Receive-Side Scaling", 2012). No secret: who knows it can fill one queue, as he can with one address.
pub(crate) const SPREAD_KEY: [u8; sys::VIPA_RSS_KEY as usize] = {
    let mut key = [0x6d; sys::VIPA_RSS_KEY as usize];
    let mut at = 1;
    while at < key.len() {
        key[at] = 0x5a;
        at += 2;
    }
    key
};

/// The ports this process has opened, by DPDK's number.
static OPENED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Whether the device beneath a port is still the one that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevicePresence {
    Present,
    /// It is gone, and may come back.
    Gone,
    /// Another one has its name, or it can only come back when the port is opened again.
    Replaced,
}

impl EthPort {
    /// Opens and starts a port; its packets come from `pool`.
    pub fn open(options: &PortOptions, pool: &Pool) -> Result<OpenPort, Error> {
        let device = &options.device;
        device.check()?;
        let id = find_or_probe(device)?;
        if !OPENED.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Err(Error::Opened { device: device.to_string() });
        }
        // From here on its drop closes the port.
        let (device, pool) = (device.clone(), pool.clone());
        let interface_index = device.interface_index();
        let mut owned = Owned { id, device, interface_index, mac: [0; 6], pool, verifies_header_sums: false };
        owned.start(options)?;
        let port = Self(Arc::new(owned));
        let rx = (0..options.rx_queues).map(|queue| RxQueue::new(port.clone(), queue)).collect();
        let tx = (0..options.tx_queues).map(|queue| TxQueue::new(port.clone(), queue)).collect();
        Ok(OpenPort { port, rx, tx })
    }

    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.0.mac
    }

    #[must_use]
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Whether the port verifies IPv4 header checksums (`RTE_ETH_RX_OFFLOAD_IPV4_CKSUM`).
    #[inline]
    #[must_use]
    pub fn verifies_header_sums(&self) -> bool {
        self.0.verifies_header_sums
    }

    /// The pool that received packets are taken from.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// `None` when the driver cannot say. May cost system calls.
    #[must_use]
    pub fn link(&self) -> Option<LinkStatus> {
        let mut link = sys::vipa_link::default();
        // SAFETY: the port is open; `link` is ours to write.
        let result = unsafe { sys::vipa_port_link(self.0.id, &raw mut link) };
        let sys::vipa_link { megabits, up, full_duplex } = link;
        let megabits = (megabits != 0).then_some(megabits);
        let up = up != 0 && self.0.device.interface_carries() != Some(false);
        (result == 0).then_some(LinkStatus { up, megabits, full_duplex: full_duplex != 0 })
    }

    /// Whether the device beneath is still the one that was opened; `Present` where that is not known.
    #[must_use]
    pub fn presence(&self) -> DevicePresence {
        let Owned { device, interface_index, .. } = &*self.0;
        match (interface_index, device.interface_index()) {
            (None, _) => DevicePresence::Present,
            (Some(opened), Some(now)) if *opened == now => DevicePresence::Present,
            (Some(_), None) if !device.makes_interface() => DevicePresence::Gone,
            (Some(_), _) => DevicePresence::Replaced,
        }
    }

    /// `None` when the hardware does not spread packets, or does not say how.
    #[must_use]
    pub fn rss(&self) -> Option<RssConfig> {
        let mut key = [0; sys::VIPA_RSS_KEY as usize];
        let mut table = [0; sys::VIPA_RSS_TABLE as usize];
        let (mut key_length, mut table_length) = (0, 0);
        let (key_place, table_place) = (key.as_mut_ptr(), table.as_mut_ptr());
        // SAFETY: the port is open; both arrays are as long as the callee's limits, and ours to write.
        let result = unsafe {
            sys::vipa_port_spread(self.0.id, key_place, &raw mut key_length, table_place, &raw mut table_length)
        };
        let (key, queues) = (key.get(..key_length.into())?, table.get(..table_length.into())?);
        (result == 0).then(|| RssConfig { key: key.to_vec(), queues: queues.to_vec() })
    }

    /// Frames that the kernel interface beneath the port has received since it was made, whoever has read them; `None` where there is no
    /// such interface.
    #[must_use]
    pub fn arrived(&self) -> Option<u64> {
        self.0.device.interface_received()
    }

    /// `None` when the driver does not count.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        let mut stats = sys::vipa_port_stats::default();
        // SAFETY: the port is open; `stats` is ours to write.
        let result = unsafe { sys::vipa_port_stats(self.0.id, &raw mut stats) };
        let sys::vipa_port_stats { received, sent, received_bytes, sent_bytes, .. } = stats;
        let sys::vipa_port_stats { missed, receive_errors, send_errors, no_buffer, .. } = stats;
        let stats =
            Stats { received, sent, received_bytes, sent_bytes, missed, receive_errors, send_errors, no_buffer };
        (result == 0).then_some(stats)
    }

    pub(crate) fn id(&self) -> u16 {
        self.0.id
    }
}

impl Owned {
    fn start(&mut self, options: &PortOptions) -> Result<(), Error> {
        let (id, pool) = (self.id, self.pool.as_ptr());
        let PortOptions { rx_queues, tx_queues, rx_descriptors, tx_descriptors, mtu, .. } = *options;
        let abilities = self.abilities()?;
        self.check(options, &abilities)?;
        self.verifies_header_sums = abilities.header_sums != 0;
        self.step("configure its queues", || {
            // SAFETY: the port exists, is ours, and is stopped; the key is as long as the callee's limit.
            unsafe { sys::vipa_port_configure(id, rx_queues, tx_queues, mtu.unwrap_or(0), SPREAD_KEY.as_ptr()) }
        })?;
        self.step("set its queues up", || {
            // SAFETY: as above; the pool lives as long as the port, which keeps it.
            unsafe { sys::vipa_port_queues(id, rx_queues, tx_queues, rx_descriptors, tx_descriptors, pool) }
        })?;
        self.step("start it", || {
            // SAFETY: the port is ours and its queues are set up.
            unsafe { sys::rte_eth_dev_start(id) }
        })?;
        self.step("deal packets to its queues", || {
            // SAFETY: the port is ours and started; the key is as long as the callee's limit.
            unsafe { sys::vipa_port_deal(id, rx_queues, SPREAD_KEY.as_ptr()) }
        })?;
        self.choose_frames(options)?;
        let mut mac = [0; 6];
        self.step("read its address", || {
            // SAFETY: the port exists; `mac` is 6 bytes to write.
            unsafe { sys::vipa_port_mac(id, mac.as_mut_ptr()) }
        })?;
        self.mac = mac;
        Ok(())
    }

    /// Which frames the port shows, beside its own and those for all. A driver that cannot filter says "not supported", and
    /// shows us every frame.
    fn choose_frames(&self, options: &PortOptions) -> Result<(), Error> {
        let id = self.id;
        let filtered = |result: i32| if result == -NOT_SUPPORTED { 0 } else { result };
        self.step("make it promiscuous or not", || {
            filtered(if options.promiscuous {
                // SAFETY: the port exists and is ours.
                unsafe { sys::rte_eth_promiscuous_enable(id) }
            } else {
                // SAFETY: as above.
                unsafe { sys::rte_eth_promiscuous_disable(id) }
            })
        })?;
        self.step("choose the groups it hears", || {
            filtered(if options.all_groups {
                // SAFETY: the port exists and is ours.
                unsafe { sys::rte_eth_allmulticast_enable(id) }
            } else {
                // SAFETY: as above.
                unsafe { sys::rte_eth_allmulticast_disable(id) }
            })
        })
    }

    /// What the driver says that it can do.
    fn abilities(&self) -> Result<sys::vipa_port_info, Error> {
        let mut info = sys::vipa_port_info::default();
        self.step("ask what it can do", || {
            // SAFETY: the port exists; `info` is ours to write.
            unsafe { sys::vipa_port_info(self.id, &raw mut info) }
        })?;
        Ok(info)
    }

    fn check(&self, options: &PortOptions, info: &sys::vipa_port_info) -> Result<(), Error> {
        let device = || self.device.to_string();
        let hint = match self.device.driver() {
            Some("net_af_packet") => " (its argument qpairs says how many)",
            Some("net_af_xdp") => " (its argument queue_count says how many)",
            _ => "",
        };
        let queues = [(options.rx_queues, info.max_rx_queues), (options.tx_queues, info.max_tx_queues)];
        if let Some(&(wanted, most)) = queues.iter().find(|(wanted, most)| wanted > most) {
            return Err(Error::Queues { device: device(), wanted, most, hint });
        }
        // The kernel spreads frames over all of the device's sockets, read or not.
        let sockets = self.device.argument("qpairs").and_then(|pairs| pairs.parse::<u16>().ok());
        if let (Some("net_af_packet"), Some(sockets)) = (self.device.driver(), sockets)
            && sockets != options.rx_queues
        {
            return Err(Error::UnreadQueues { device: device(), sockets, queues: options.rx_queues });
        }
        let highest = info.max_mtu.min(self.pool.frame_room().saturating_sub(FRAME_OVERHEAD));
        match options.mtu {
            Some(mtu) if !(info.min_mtu..=highest).contains(&mtu) => {
                Err(Error::Mtu { device: device(), mtu, lowest: info.min_mtu, highest })
            }
            _ => Ok(()),
        }
    }

    fn step(&self, step: &'static str, work: impl FnOnce() -> i32) -> Result<(), Error> {
        log::explain(
            || match work() {
                0 => Ok(()),
                error => Err(error),
            },
            |error, log| Error::Port { device: self.device.to_string(), step, reason: reason(error), log },
        )
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the port exists, and with the last owner gone nobody uses its queues. A device that cannot be taken
        // away stays until DPDK ends.
        unsafe { sys::vipa_port_close(self.id, i32::from(!self.device.is_pci())) };
        OPENED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// ENOTSUP on Linux.
const NOT_SUPPORTED: i32 = 95;

/// DPDK's number of the device's port. A virtual device is created; one on PCI was found when DPDK started.
fn find_or_probe(device: &Device) -> Result<u16, Error> {
    let text = |text: &str| CString::new(text).map_err(|_| Error::DeviceName { device: device.to_string() });
    let (name, arguments) = (text(device.name())?, text(&device.to_string())?);
    if let Some(id) = find(&name) {
        return Ok(id);
    }
    let probe = || {
        // SAFETY: DPDK runs (there is a pool); the text is terminated and copied by the callee.
        match unsafe { sys::rte_dev_probe(arguments.as_ptr()) } {
            0 => find(&name).ok_or(-NO_DEVICE),
            error => Err(error),
        }
    };
    log::explain(probe, |error, log| explain_probe(device, error, log))
}

/// ENODEV on Linux.
const NO_DEVICE: i32 = 19;

fn find(name: &CString) -> Option<u16> {
    let mut id = 0;
    // SAFETY: DPDK runs; `name` is terminated, `id` is ours to write.
    (unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) } == 0).then_some(id)
}

fn explain_probe(device: &Device, error: i32, log: String) -> Error {
    match (device.driver(), device.kernel_driver()) {
        (Some(driver), _) if log.contains("failed to parse device") || log.contains("no driver") => {
            let package = format!("librte-{}", driver.replace('_', "-"));
            Error::NoDriver { device: device.to_string(), driver: driver.to_owned(), package }
        }
        (None, Some(driver)) if !matches!(driver.as_str(), "vfio-pci" | "uio_pci_generic" | "igb_uio") => {
            Error::NotBound { device: device.name().to_owned(), driver }
        }
        _ => Error::Probe { device: device.to_string(), reason: reason(error), log },
    }
}

#[cfg(test)]
mod tests;
