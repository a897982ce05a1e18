//! `port.device`: what of a DPDK device's name and arguments is wrong on any machine.

use super::{
    problems::Problems,
    read::{Value, distance, text},
};

/// Virtual devices that DPDK has drivers for (22.11 to 24.11).
const DRIVERS: [&str; 16] = [
    "net_af_packet",
    "net_af_xdp",
    "net_bonding",
    "net_failsafe",
    "net_memif",
    "net_mvneta",
    "net_mvpp2",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_softnic",
    "net_tap",
    "net_tun",
    "net_vdev_netvsc",
    "net_vhost",
    "net_virtio_user",
];

/// Arguments of the drivers that are used on machines without a NIC of their own for DPDK.
const ARGUMENTS: [(&str, &[&str]); 2] = [
    ("net_af_packet", &["iface", "qpairs", "blocksz", "framesz", "framecnt", "qdisc_bypass", "fanout_mode"]),
    ("net_tap", &["iface", "mac", "remote", "persist"]),
];

/// The argument without which a driver does nothing, and an example.
const NEEDED: [(&str, &str, &str); 4] = [
    ("net_af_packet", "iface", "eth0"),
    ("net_af_xdp", "iface", "eth0"),
    ("net_virtio_user", "path", "/dev/vhost-net"),
    ("net_vhost", "iface", "/run/vhost.sock"),
];

/// Largest `mtu` of drivers whose frames have a fixed size: rte_eth_af_packet.c tells frames of RTE_ETHER_MAX_LEN bytes.
const LARGEST_MTU: [(&str, u16); 1] = [("net_af_packet", 1_500)];

const EXAMPLES: &str =
    "write a PCI address such as \"0000:03:00.0\", or a virtual device such as \"net_af_packet0,iface=eth0\"";

/// The name of a device's driver: `net_af_packet` of `net_af_packet0,iface=eth0`.
#[must_use]
pub fn driver_of(device: &str) -> Option<&str> {
    let name = device.split(',').next().unwrap_or_default();
    name.starts_with("net_").then(|| name.trim_end_matches(|last: char| last.is_ascii_digit()))
}

/// The largest `mtu` that the device's driver takes, where that does not depend on the machine.
#[must_use]
pub fn largest_mtu(device: &str) -> Option<u16> {
    let driver = driver_of(device)?;
    LARGEST_MTU.iter().find(|(name, _)| *name == driver).map(|(_, mtu)| *mtu)
}

pub(super) fn device(problems: &mut Problems, value: &Value<'_>) -> Option<String> {
    let device = text(problems, value)?;
    match check(&device) {
        Ok(()) => Some(device),
        Err(message) => problems.add(value.span(), message),
    }
}

fn check(device: &str) -> Result<(), String> {
    let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
    if is_pci(name) {
        return Ok(());
    }
    check_name(name, arguments)?;
    let Some(driver) = driver_of(device) else { return Ok(()) };
    let mut keys = Vec::new();
    for argument in arguments.split(',').filter(|argument| !argument.is_empty()) {
        let Some((key, value)) = argument.split_once('=') else {
            return Err(format!(
                "`{argument}` is no argument of a device: write KEY=VALUE, such as \"{name},iface=eth0\""
            ));
        };
        if let Some((_, known)) = ARGUMENTS.iter().find(|(of, _)| *of == driver)
            && !known.contains(&key)
        {
            return Err(format!("{driver} has no argument `{key}`; {}", advice(key, known)));
        }
        if key == "iface" && driver != "net_vhost" && !(1..=15).contains(&value.len()) {
            return Err(format!("\"{value}\" is no name of an interface, which has 1 to 15 characters"));
        }
        keys.push(key);
    }
    match NEEDED.iter().find(|(of, needed, _)| *of == driver && !keys.contains(needed)) {
        Some((_, needed, example)) => {
            Err(format!("{driver} needs the argument `{needed}`, such as \"{name},{needed}={example}\""))
        }
        None => Ok(()),
    }
}

fn check_name(name: &str, arguments: &str) -> Result<(), String> {
    let with = |name: &str| {
        let separator = if arguments.is_empty() { "" } else { "," };
        format!("\"{name}{separator}{arguments}\"")
    };
    let is_number = |rest: &str| rest.bytes().all(|digit| digit.is_ascii_digit());
    if DRIVERS.iter().any(|driver| name.strip_prefix(driver).is_some_and(is_number)) {
        return Ok(());
    }
    let number = name.trim_start_matches(|first: char| !first.is_ascii_digit());
    let (stem, number) = match name.strip_suffix(number) {
        Some(stem) if is_number(number) => (stem, number),
        _ => (name, ""),
    };
    // As people write them: af_packet, af-packet, net-af-packet, eth_af_packet, AF_PACKET.
    let plain = stem.to_lowercase().replace('-', "_");
    let bare = ["net_", "eth_"].iter().find_map(|prefix| plain.strip_prefix(prefix)).unwrap_or(&plain);
    let near = DRIVERS.iter().map(|driver| (distance(driver.trim_start_matches("net_"), bare), driver)).min();
    if let Some((far, driver)) = near
        && far <= 2
        && far * 3 < bare.len()
    {
        let number = if number.is_empty() { "0" } else { number };
        return Err(format!("DPDK has no driver \"{stem}\"; did you mean {}?", with(&format!("{driver}{number}"))));
    }
    if name.contains(':') || name.contains('.') {
        return Err(format!(
            "\"{name}\" is no PCI address; {EXAMPLES} (`dpdk-devbind.py --status-dev net` lists them)"
        ));
    }
    if name.starts_with("net_")
        && name.len() > 4
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        // Another release of DPDK may have it.
        return Ok(());
    }
    Err(format!(
        "\"{name}\" is no device of DPDK's; {EXAMPLES}; an interface of the kernel's is one as \"net_af_packet0,iface={name}\""
    ))
}

/// `03:00.0` or `0000:03:00.0`.
fn is_pci(name: &str) -> bool {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let rest = match name.matches(':').count() {
        2 => name.split_once(':').filter(|(domain, _)| hex(domain, 4)).map(|(_, rest)| rest),
        1 => Some(name),
        _ => None,
    };
    let parts = rest.and_then(|rest| rest.split_once(':')).and_then(|(bus, rest)| Some((bus, rest.split_once('.')?)));
    parts.is_some_and(|(bus, (device, function))| hex(bus, 2) && hex(device, 2) && hex(function, 1))
}

fn advice(key: &str, known: &[&str]) -> String {
    match known.iter().map(|known| (distance(known, key), known)).min() {
        Some((far, known)) if far <= 2 => format!("did you mean `{known}`?"),
        _ => format!("it has {}", super::read::quoted(known)),
    }
}
