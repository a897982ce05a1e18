//! Whether the libraries of DPDK are there that the ports need: each driver, bus and pool is a library that DPDK loads at its start, and a
//! package of its own.

use std::collections::BTreeSet;

use vipa_model::config::{KernelDriver, Port, driver_of};

use crate::{Diagnosis, Root};

/// Where the dynamic linker looks, beside what /etc/ld.so.conf.d adds.
const FOLDERS: [&str; 4] = ["lib", "usr/lib", "usr/local/lib", "usr/local/lib64"];

/// Libraries of DPDK, by name without `lib` and ending: `rte_net_tap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Libraries {
    names: BTreeSet<String>,
    /// The number in packages' names: of Debian 12 it is 23.
    abi: Option<String>,
}

pub(crate) fn read(root: &Root) -> Libraries {
    let mut libraries = Libraries::default();
    for folder in folders(root) {
        for file in root.names(&folder) {
            let Some((name, rest)) = file.strip_prefix("lib").and_then(|file| file.split_once(".so")) else { continue };
            if !name.starts_with("rte_") {
                continue;
            }
            if name == "rte_eal" && libraries.abi.is_none() {
                let number = rest.trim_start_matches('.').split('.').next().unwrap_or_default();
                libraries.abi = (!number.is_empty()).then(|| number.to_owned());
            }
            libraries.names.insert(name.to_owned());
        }
    }
    libraries
}

/// Folders of the linker, and the one beneath each where DPDK looks for what it loads by itself.
fn folders(root: &Root) -> Vec<String> {
    let mut folders: Vec<String> = FOLDERS.map(str::to_owned).to_vec();
    for base in ["usr/lib", "usr/local/lib", "lib"] {
        folders.extend(
            root.names(base)
                .into_iter()
                .filter(|name| name.ends_with("-linux-gnu"))
                .map(|name| format!("{base}/{name}")),
        );
    }
    for file in root.names("etc/ld.so.conf.d") {
        let text = root.text(&format!("etc/ld.so.conf.d/{file}")).unwrap_or_default();
        folders.extend(text.lines().filter(|line| line.starts_with('/')).map(|line| line.trim_matches('/').to_owned()));
    }
    let plugins: Vec<String> = folders
        .iter()
        .flat_map(|folder| {
            let below = format!("{folder}/dpdk");
            root.names(&below)
                .into_iter()
                .filter(|name| name.starts_with("pmds"))
                .map(move |name| format!("{below}/{name}"))
        })
        .collect();
    folders.extend(plugins);
    folders.sort();
    folders.dedup();
    folders
}

pub(crate) fn check(ports: &[Port], libraries: &Libraries) -> Vec<Diagnosis> {
    if libraries.names.is_empty() {
        let text = "no library of DPDK is where the linker looks: apt-get install libdpdk-dev, or the packages of docs/operations.md";
        return vec![Diagnosis::harm("DPDK", text)];
    }
    let mut needed: Vec<(String, String)> = vec![("mempool_ring".into(), "every port's packet buffers".into())];
    for port in ports {
        let of = format!("port {}", port.name);
        match driver_of(&port.device) {
            Some(driver) => needed.extend([("bus_vdev".into(), of.clone()), (driver.into(), of)]),
            None => needed.push(("bus_pci".into(), of)),
        }
        if port.kernel_interface.is_some() {
            let driver = match port.kernel_driver {
                KernelDriver::Tap => "net_tap",
                KernelDriver::VirtioUser => "net_virtio",
            };
            let of = format!("the kernel_interface of port {}", port.name);
            needed.extend(["bus_vdev", driver].map(|name| (name.to_owned(), of.clone())));
        }
    }
    let mut seen = BTreeSet::new();
    needed.retain(|(name, _)| seen.insert(name.clone()));
    needed.into_iter().map(|(name, what)| library(&name, &what, libraries)).collect()
}

fn library(name: &str, what: &str, libraries: &Libraries) -> Diagnosis {
    // Drivers whose library is called otherwise.
    let file = match name {
        "net_virtio_user" => "net_virtio",
        "net_tun" => "net_tap",
        name => name,
    };
    let subject = format!("library librte_{file}");
    if libraries.names.contains(&format!("rte_{file}")) {
        return Diagnosis::ok(subject, format!("is there for {what}"));
    }
    let package = format!("librte-{}{}", file.replace('_', "-"), libraries.abi.as_deref().unwrap_or_default());
    Diagnosis::harm(subject, format!("is missing, and {what} needs it: apt-get install {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{config, root_with};

    fn libraries(names: &[&str]) -> Root {
        let files: Vec<_> = names.iter().map(|name| (format!("usr/lib/x86_64-linux-gnu/{name}"), "")).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        root_with(&files)
    }

    #[test]
    fn a_missing_driver_bus_or_pool_is_named_with_its_package() {
        let root = libraries(&["librte_eal.so.23.0", "librte_bus_vdev.so.23", "dpdk/pmds-23.0/librte_net_tap.so.23"]);
        let config = config("device = \"net_af_packet0,iface=eth0\"\nkernel_interface = \"k0\"");
        let said: Vec<String> = check(&config.ports, &read(&root)).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "HARM     library librte_mempool_ring: is missing, and every port's packet buffers needs it: apt-get install librte-mempool-ring23",
                "ok       library librte_bus_vdev: is there for port p0",
                "HARM     library librte_net_af_packet: is missing, and port p0 needs it: apt-get install librte-net-af-packet23",
                "ok       library librte_net_tap: is there for the kernel_interface of port p0",
            ]
        );
    }

    #[test]
    fn a_machine_without_dpdk_and_a_pci_device_are_told() {
        let config = config("device = \"0000:03:00.0\"");
        assert_eq!(check(&config.ports, &read(&root_with(&[])))[0].level, crate::DiagnosisLevel::Harm);
        let root = libraries(&["librte_eal.so.24", "librte_mempool_ring.so.24"]);
        let said = check(&config.ports, &read(&root));
        assert!(said[1].text.ends_with("apt-get install librte-bus-pci24"), "{said:?}");
    }
}
