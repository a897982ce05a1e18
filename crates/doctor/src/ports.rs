//! What is beneath the ports: cards and who drives them, interfaces of the kernel's, and files of devices.

use vipa_model::config::{Config, KernelDriver, Port, driver_of};

use crate::{Diagnosis, Root};

/// Kernel drivers by which a process drives a card itself.
const FOR_DPDK: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];
/// Drivers of cards that DPDK shares with the kernel (NVIDIA's).
const SHARED: [&str; 2] = ["mlx5_core", "mlx4_core"];

pub(crate) fn check(config: &Config, root: &Root) -> Vec<Diagnosis> {
    let mut findings = Vec::new();
    for port in &config.ports {
        let subject = format!("port {}", port.name);
        match (pci_address(&port.device), driver_of(&port.device)) {
            (Some(address), _) => findings.extend(pci(&subject, &address, root)),
            (None, Some("net_af_packet" | "net_af_xdp")) => findings.extend(interface(&subject, port, root)),
            (None, Some("net_tap" | "net_tun")) => findings.push(tun(&subject, root)),
            _ => {}
        }
        match port.kernel_interface.as_ref().map(|_| port.kernel_driver) {
            Some(KernelDriver::Tap) => findings.push(tun(&format!("kernel_interface of {subject}"), root)),
            Some(KernelDriver::VirtioUser) if !root.exists("dev/vhost-net") => findings.push(Diagnosis::harm(
                format!("kernel_interface of {subject}"),
                "there is no /dev/vhost-net: modprobe vhost-net",
            )),
            _ => {}
        }
    }
    findings
}

/// The argument `iface` of a device.
pub(crate) fn interface_of(device: &str) -> Option<&str> {
    device.split(',').find_map(|argument| argument.strip_prefix("iface="))
}

/// The PCI address of a device in its long form.
pub(crate) fn pci_address(device: &str) -> Option<String> {
    let name = device.split(',').next()?;
    if name.starts_with("net_") {
        return None;
    }
    let long = if name.matches(':').count() == 1 { format!("0000:{name}") } else { name.to_owned() };
    Some(long.to_ascii_lowercase())
}

fn pci(subject: &str, address: &str, root: &Root) -> Vec<Diagnosis> {
    let folder = format!("sys/bus/pci/devices/{address}");
    if !root.exists(&folder) {
        let text =
            format!("there is no PCI device {address}: `dpdk-devbind.py --status-dev net` lists those there are");
        return vec![Diagnosis::harm(subject, text)];
    }
    let driver = root.link(&format!("{folder}/driver"));
    match driver.as_deref() {
        Some(driver) if SHARED.contains(&driver) => {
            vec![Diagnosis::ok(subject, format!("{address} is shared with the kernel's {driver}"))]
        }
        Some("vfio-pci") => vfio(subject, address, root),
        Some(driver) if FOR_DPDK.contains(&driver) => {
            vec![Diagnosis::ok(subject, format!("{address} is bound to {driver}"))]
        }
        Some(driver) => {
            let text = format!("{address} is the kernel's ({driver}): dpdk-devbind.py -b vfio-pci {address}");
            vec![Diagnosis::harm(subject, text)]
        }
        None => {
            let text = format!("{address} has no driver: modprobe vfio-pci && dpdk-devbind.py -b vfio-pci {address}");
            vec![Diagnosis::harm(subject, text)]
        }
    }
}

fn vfio(subject: &str, address: &str, root: &Root) -> Vec<Diagnosis> {
    let group = root.link(&format!("sys/bus/pci/devices/{address}/iommu_group"));
    let Some(group) = group else {
        let is_open = root.text("sys/module/vfio/parameters/enable_unsafe_noiommu_mode").as_deref() == Some("Y");
        return vec![if is_open {
            Diagnosis::warning(
                subject,
                "the card may write anywhere in memory: turn the IOMMU on (intel_iommu=on or amd_iommu=on) where there is one",
            )
        } else {
            let text = "there is no IOMMU: turn it on in the firmware and by intel_iommu=on or amd_iommu=on, or, in a virtual machine: \
                        echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
            Diagnosis::harm(subject, text)
        }];
    };
    let file = format!("dev/vfio/{group}");
    vec![match std::fs::OpenOptions::new().read(true).write(true).open(root.path(&file)) {
        Ok(_) => Diagnosis::ok(subject, format!("{address} is bound to vfio-pci, group {group}")),
        // The process that runs has it.
        Err(error) if error.raw_os_error() == Some(16) => {
            Diagnosis::ok(subject, format!("{address} is bound to vfio-pci, and a process has it"))
        }
        Err(error) => Diagnosis::harm(
            subject,
            format!("cannot open /{file}: {error}; run as root, or give the service's user the group"),
        ),
    }]
}

fn interface(subject: &str, port: &Port, root: &Root) -> Vec<Diagnosis> {
    let Some(interface) = interface_of(&port.device) else { return Vec::new() };
    let folder = format!("sys/class/net/{interface}");
    if !root.exists(&folder) {
        let others = root.names("sys/class/net").join(", ");
        let text = format!("there is no interface {interface} here; there are {others}: change `device`");
        return vec![Diagnosis::harm(subject, text)];
    }
    let mut findings = Vec::new();
    let is_up = root
        .text(&format!("{folder}/flags"))
        .and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok())
        .is_some_and(|flags| flags & 1 == 1);
    if !is_up {
        findings.push(Diagnosis::harm(subject, format!("{interface} is down: ip link set {interface} up")));
    }
    let mtu = root.number(&format!("{folder}/mtu")).unwrap_or_default();
    let wanted = u64::from(port.mtu);
    if mtu != 0 && mtu < wanted {
        let text = format!(
            "{interface} has an MTU of {mtu}, and the port one of {wanted}: ip link set {interface} mtu {wanted}"
        );
        findings.push(Diagnosis::harm(subject, text));
    }
    if findings.is_empty() {
        findings.push(Diagnosis::ok(subject, format!("{interface} is up, with an MTU of {mtu}")));
    }
    findings
}

fn tun(subject: &str, root: &Root) -> Diagnosis {
    if root.exists("dev/net/tun") {
        Diagnosis::ok(subject, "/dev/net/tun is there")
    } else {
        Diagnosis::harm(subject, "there is no /dev/net/tun: modprobe tun")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{config, root_with, said};

    #[test]
    fn an_interface_that_is_missing_down_or_too_narrow_is_told() {
        let root = root_with(&[("sys/class/net/eth1/flags", "0x1002\n"), ("sys/class/net/eth1/mtu", "1400\n")]);
        assert_eq!(
            said(&check(&config("device = \"net_af_packet0,iface=eth0\""), &root)),
            ["HARM     port p0: there is no interface eth0 here; there are eth1: change `device`"]
        );
        assert_eq!(
            said(&check(&config("device = \"net_af_packet0,iface=eth1\""), &root)),
            [
                "HARM     port p0: eth1 is down: ip link set eth1 up",
                "HARM     port p0: eth1 has an MTU of 1400, and the port one of 1500: ip link set eth1 mtu 1500",
            ]
        );
    }

    #[test]
    fn a_card_that_is_the_kernels_missing_or_without_an_iommu_is_told_with_the_command() {
        let root = root_with(&[("sys/bus/pci/devices/0000:03:00.0/vendor", "0x8086")]);
        let link = |to: &str| {
            let link = root.path("sys/bus/pci/devices/0000:03:00.0/driver");
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(format!("../../../bus/pci/drivers/{to}"), link).unwrap();
        };
        let of = |device: &str| said(&check(&config(&format!("device = \"{device}\"")), &root)).join("\n");
        assert!(of("03:00.0").contains("has no driver: modprobe vfio-pci && dpdk-devbind.py -b vfio-pci 0000:03:00.0"));
        link("ixgbe");
        assert_eq!(
            of("03:00.0"),
            "HARM     port p0: 0000:03:00.0 is the kernel's (ixgbe): dpdk-devbind.py -b vfio-pci 0000:03:00.0"
        );
        link("mlx5_core");
        assert!(of("03:00.0").starts_with("ok"));
        link("vfio-pci");
        assert!(of("03:00.0").contains("there is no IOMMU"));
        assert!(of("04:00.0").contains("there is no PCI device 0000:04:00.0"));
    }

    #[test]
    fn a_kernel_interface_needs_a_device_of_the_kernels() {
        let with = |driver: &str| {
            config(&format!("device = \"net_memif0\"\nkernel_interface = \"k0\"\nkernel_driver = \"{driver}\""))
        };
        assert_eq!(
            said(&check(&with("tap"), &root_with(&[]))),
            ["HARM     kernel_interface of port p0: there is no /dev/net/tun: modprobe tun"]
        );
        assert!(said(&check(&with("virtio-user"), &root_with(&[])))[0].contains("modprobe vhost-net"));
        assert_eq!(check(&with("virtio-user"), &root_with(&[("dev/vhost-net", "")])), []);
    }
}
