//! A port's device as the configuration names it, and what can be known to be wrong with it beforehand.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// A PCI address (`0000:03:00.0`, or `03:00.0`) or a virtual device (`net_af_packet0`), each with the driver's arguments
/// after a comma: `net_af_packet0,iface=eth0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    name: String,
    arguments: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pci,
    Virtual,
}

/// Bits of Linux capabilities (capabilities(7)).
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

impl Device {
    /// Its name without arguments; a PCI address in its long form.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn is_pci(&self) -> bool {
        self.kind == Kind::Pci
    }

    /// The driver of a virtual device: its name without the number, `net_af_packet`.
    #[must_use]
    pub fn driver(&self) -> Option<&str> {
        match self.kind {
            Kind::Pci => None,
            Kind::Virtual => Some(self.name.trim_end_matches(|last: char| last.is_ascii_digit())),
        }
    }

    /// The value of one of the driver's arguments.
    #[must_use]
    pub fn argument(&self, key: &str) -> Option<&str> {
        let mut pairs = self.arguments.split(',').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(name, value)| (name == key).then_some(value))
    }

    /// memif shares memory with another process, which works only with few large files.
    pub(crate) fn needs_single_file_segments(&self) -> bool {
        self.driver() == Some("net_memif")
    }

    /// Whether the kernel's interface beneath carries frames, for drivers that do not say; `None` where there is none.
    pub(crate) fn interface_carries(&self) -> Option<bool> {
        // It can be read only while the interface is up.
        let carrier = fs::read_to_string(self.interface()?.join("carrier"));
        Some(carrier.is_ok_and(|carrier| carrier.trim() == "1"))
    }

    /// Frames that the kernel's interface beneath has received since it is there, whoever read them; `None` where there is
    /// none.
    pub(crate) fn interface_received(&self) -> Option<u64> {
        fs::read_to_string(self.interface()?.join("statistics/rx_packets")).ok()?.trim().parse().ok()
    }

    /// The kernel's number of the interface beneath, by which another one of the same name differs; `None` where there is none now.
    pub(crate) fn interface_index(&self) -> Option<u32> {
        let folder = match self.driver()? {
            "net_tap" => Path::new("/sys/class/net").join(self.argument("iface")?),
            _ => self.interface()?,
        };
        fs::read_to_string(folder.join("ifindex")).ok()?.trim().parse().ok()
    }

    /// Whether the driver makes the interface beneath itself, so that it comes back only when the port is opened again.
    pub(crate) fn makes_interface(&self) -> bool {
        self.driver() == Some("net_tap")
    }

    /// What sysfs has of the kernel's interface beneath.
    fn interface(&self) -> Option<PathBuf> {
        let name = match self.driver()? {
            "net_af_packet" | "net_af_xdp" => self.argument("iface")?,
            _ => return None,
        };
        Some(Path::new("/sys/class/net").join(name))
    }

    /// Finds the mistakes that DPDK would report vaguely or not at all.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.driver() {
            Some(driver) => self.check_virtual(driver),
            None => self.check_pci(),
        }
    }

    fn check_virtual(&self, driver: &str) -> Result<(), Error> {
        if driver == "net_virtio_user" {
            return self.check_vhost();
        }
        let (capability, name) = match driver {
            "net_af_packet" => (CAP_NET_RAW, "CAP_NET_RAW"),
            "net_af_xdp" | "net_tap" => (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
            _ => return Ok(()),
        };
        if !may(capability) {
            return Err(Error::NotPermitted { device: self.to_string(), capability: name });
        }
        if driver == "net_tap" {
            let missing = !Path::new("/dev/net/tun").exists();
            return if missing { Err(Error::NoTun { device: self.to_string() }) } else { Ok(()) };
        }
        let Some(interface) = self.argument("iface") else {
            return Err(Error::NoInterfaceNamed { device: self.to_string(), name: self.name.clone() });
        };
        if Path::new("/sys/class/net").join(interface).exists() {
            return Ok(());
        }
        Err(Error::NoInterface { device: self.to_string(), interface: interface.to_owned() })
    }

    /// Behind a virtio-user port is a device of the kernel's, or another process's socket.
    fn check_vhost(&self) -> Result<(), Error> {
        match self.argument("path") {
            Some(path) if path.starts_with("/dev/") && !Path::new(path).exists() => {
                Err(Error::NoVhost { device: self.to_string(), path: path.to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn check_pci(&self) -> Result<(), Error> {
        let folder = Path::new("/sys/bus/pci/devices").join(&self.name);
        if !folder.exists() {
            return Err(Error::NoPciDevice { device: self.name.clone() });
        }
        Ok(())
    }

    /// The kernel driver a PCI device is bound to.
    pub(crate) fn kernel_driver(&self) -> Option<String> {
        let link = fs::read_link(Path::new("/sys/bus/pci/devices").join(&self.name).join("driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, arguments) = text.split_once(',').unwrap_or((text, ""));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if let Some(name) = pci_address(name) {
            return Ok(Self { name, arguments: arguments.to_owned(), kind: Kind::Pci });
        }
        if name.len() > "net_".len() && name.starts_with("net_") && name.bytes().all(plain) && !text.contains('\0') {
            return Ok(Self { name: name.to_owned(), arguments: arguments.to_owned(), kind: Kind::Virtual });
        }
        Err(Error::DeviceName { device: text.to_owned() })
    }
}

/// As DPDK takes it.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.arguments.is_empty() { Ok(()) } else { write!(f, ",{}", self.arguments) }
    }
}

/// The long form, in lower case as the kernel has it, of `[domain:]bus:device.function`.
fn pci_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (domain, rest) = if text.matches(':').count() == 2 { text.split_once(':')? } else { ("0000", text) };
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let valid = hex(domain, 4) && hex(bus, 2) && hex(device, 2) && hex(function, 1);
    valid.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

/// True when this process has a capability, or when that cannot be known.
fn may(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask >> capability & 1 == 1)
}

#[cfg(test)]
mod tests;
