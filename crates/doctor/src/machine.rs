//! Processors and memory.

use std::collections::{BTreeMap, BTreeSet};

use vipa_model::config::{Config, Idle, Memory, Port};

use crate::{Diagnosis, Root, ports::pci_address, root::cpu_list};

const MB: u64 = 1 << 20;
/// Bytes of the connection table for each connection: a bucket of 64 bytes (128 for IPv6) has four entries, of which three quarters are used.
const CONNECTION_IPV4: u64 = 64 / 3;
const CONNECTION_IPV6: u64 = 128 / 3;
/// Of the program itself, for what is not the table or DPDK's.
const PROGRAM: u64 = 128 * MB;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) online: Vec<u16>,
    /// Those that this process may use.
    pub(crate) allowed: Vec<u16>,
    /// Kept free of other processes by `isolcpus`.
    pub(crate) isolated: Vec<u16>,
    pub(crate) governors: BTreeMap<u16, String>,
    /// Memory node of each core.
    pub(crate) nodes: BTreeMap<u16, u16>,
    /// Memory node of PCI devices.
    pub(crate) device_nodes: BTreeMap<String, u16>,
}

pub(crate) fn read_cores(root: &Root) -> Cores {
    let list = |path: &str| cpu_list(&root.text(path).unwrap_or_default());
    let online = list("sys/devices/system/cpu/online");
    let status = root.text("proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let (mut governors, mut nodes) = (BTreeMap::new(), BTreeMap::new());
    for core in &online {
        let folder = format!("sys/devices/system/cpu/cpu{core}");
        governors.extend(root.text(&format!("{folder}/cpufreq/scaling_governor")).map(|governor| (*core, governor)));
        let node = root.names(&folder).iter().find_map(|name| name.strip_prefix("node")?.parse().ok());
        nodes.extend(node.map(|node| (*core, node)));
    }
    let devices = root.names("sys/bus/pci/devices").into_iter();
    // -1 where the machine has one node.
    let node = |device: &String| root.text(&format!("sys/bus/pci/devices/{device}/numa_node"))?.parse().ok();
    Cores {
        isolated: list("sys/devices/system/cpu/isolated"),
        allowed: cpu_list(allowed),
        governors,
        nodes,
        device_nodes: devices.filter_map(|device| Some((device.clone(), node(&device)?))).collect(),
        online,
    }
}

pub(crate) fn cores(config: &Config, cores: &Cores) -> Vec<Diagnosis> {
    let mut findings = Vec::new();
    let wanted = &config.workers.cores;
    let missing: Vec<u16> = wanted.iter().copied().filter(|core| !cores.online.contains(core)).collect();
    let barred: Vec<u16> =
        wanted.iter().copied().filter(|core| !missing.contains(core) && !cores.allowed.contains(core)).collect();
    if !missing.is_empty() {
        findings.push(Diagnosis::harm(
            format!("core {}", named(&missing)),
            format!("this machine has cores {}: set workers.cores to some of them", named(&cores.online)),
        ));
    } else if !barred.is_empty() {
        findings.push(Diagnosis::harm(
            format!("core {}", named(&barred)),
            format!(
                "this process may use cores {} only: see CPUAffinity= of the unit, or `taskset -p`",
                named(&cores.allowed)
            ),
        ));
    } else {
        findings.push(Diagnosis::ok("cores", format!("workers run on {}", named(wanted))));
    }
    let shared: Vec<u16> = wanted.iter().copied().filter(|core| !cores.isolated.contains(core)).collect();
    // A worker that sleeps shares its core anyway.
    if config.workers.idle != Idle::Sleep {
        findings.push(if shared.is_empty() {
            Diagnosis::ok("isolation", "no other process runs on the workers' cores")
        } else {
            let text = format!(
                "other processes run on core {}, too, and delay packets: add isolcpus={} to the kernel's command line",
                named(&shared),
                named(wanted).replace(", ", ",")
            );
            Diagnosis::warning("isolation", text)
        });
    }
    let slow: Vec<u16> = wanted
        .iter()
        .copied()
        .filter(|core| cores.governors.get(core).is_some_and(|governor| governor != "performance"))
        .collect();
    if !slow.is_empty() {
        let text = format!(
            "core {} is slowed down when it looks idle, as one that polls may: cpupower -c {} frequency-set -g performance",
            named(&slow),
            named(&slow).replace(", ", ",")
        );
        findings.push(Diagnosis::warning("frequency", text));
    }
    findings.extend(numa(config, cores));
    findings
}

fn named(cores: &[u16]) -> String {
    cores.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn numa(config: &Config, cores: &Cores) -> Vec<Diagnosis> {
    let nodes: BTreeSet<u16> = cores.nodes.values().copied().collect();
    if nodes.len() < 2 {
        return Vec::new();
    }
    let far = |port: &Port| {
        let node = cores.device_nodes.get(&pci_address(&port.device)?)?;
        let far: Vec<u16> = config
            .workers
            .cores
            .iter()
            .copied()
            .filter(|core| cores.nodes.get(core).is_some_and(|of| of != node))
            .collect();
        let near: Vec<u16> = cores.nodes.iter().filter(|(_, of)| *of == node).map(|(core, _)| *core).collect();
        (!far.is_empty()).then(|| {
            let text = format!(
                "is on memory node {node} and core {} is not, so that each packet crosses between processors: choose workers.cores among {}",
                named(&far),
                named(&near)
            );
            Diagnosis::warning(format!("port {}", port.name), text)
        })
    };
    config.ports.iter().filter_map(far).collect()
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryFacts {
    /// Bytes that programs could still take.
    pub(crate) available: u64,
    /// Bytes of free hugepages.
    pub(crate) hugepages_free: u64,
    pub(crate) hugepages_mounted: bool,
}

pub(crate) fn read_memory(root: &Root) -> MemoryFacts {
    let meminfo = root.text("proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    let free = |folder: &String| -> Option<u64> {
        let size: u64 = folder.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(size * 1024 * root.number(&format!("sys/kernel/mm/hugepages/{folder}/free_hugepages"))?)
    };
    let mounts = root.text("proc/self/mounts").unwrap_or_default();
    MemoryFacts {
        available: field("MemAvailable").unwrap_or_default() * 1024,
        hugepages_free: root.names("sys/kernel/mm/hugepages").iter().filter_map(free).sum(),
        hugepages_mounted: mounts.lines().any(|line| line.split_whitespace().nth(2) == Some("hugetlbfs")),
    }
}

pub(crate) fn memory(config: &Config, facts: &MemoryFacts) -> Vec<Diagnosis> {
    let connections = config.table.connections;
    let ipv6 = config.vipas.iter().any(|vipa| vipa.address.is_ipv6());
    let ipv4 = !ipv6 || config.vipas.iter().any(|vipa| vipa.address.is_ipv4());
    let table = connections * (u64::from(ipv4) * CONNECTION_IPV4 + u64::from(ipv6) * CONNECTION_IPV6);
    let dpdk = u64::from(config.dpdk.memory_mb) * MB;
    let uses_hugepages = match config.dpdk.memory {
        Memory::Hugepages => true,
        Memory::NoHuge => false,
        Memory::Auto => facts.hugepages_mounted && facts.hugepages_free >= dpdk,
    };
    let mut findings = Vec::new();
    if config.dpdk.memory == Memory::Hugepages {
        findings.push(hugepages(dpdk, facts));
    } else if !uses_hugepages && config.ports.iter().any(|port| pci_address(&port.device).is_some()) {
        let pages = dpdk.div_ceil(2 * MB);
        findings.push(Diagnosis::warning(
            "hugepages",
            format!("a card without them costs speed, and some drivers refuse: sysctl -w vm.nr_hugepages={pages}"),
        ));
    }
    let needed = table + PROGRAM + if uses_hugepages { 0 } else { dpdk };
    let text = format!(
        "{} MB are needed (connection table {} MB, DPDK {} MB, program {} MB), {} MB are available",
        needed / MB,
        table / MB,
        if uses_hugepages { 0 } else { dpdk / MB },
        PROGRAM / MB,
        facts.available / MB
    );
    findings.push(if needed > facts.available {
        let mend = "lower table.connections or dpdk.memory_mb, or free memory";
        Diagnosis::harm("memory", format!("{text}: {mend}"))
    } else {
        Diagnosis::ok("memory", text)
    });
    findings
}

fn hugepages(needed: u64, facts: &MemoryFacts) -> Diagnosis {
    let (needed_mb, free) = (needed / MB, facts.hugepages_free / MB);
    if facts.hugepages_free < needed {
        let pages = needed.div_ceil(2 * MB);
        let text = format!("{needed_mb} MB are needed and {free} MB are free: sysctl -w vm.nr_hugepages={pages}");
        return Diagnosis::harm("hugepages", text);
    }
    if !facts.hugepages_mounted {
        return Diagnosis::harm("hugepages", "no hugetlbfs is mounted: mount -t hugetlbfs none /dev/hugepages");
    }
    Diagnosis::ok("hugepages", format!("{free} MB are free, and {needed_mb} MB are needed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{config_with, root_with, said};

    #[test]
    fn cores_that_are_missing_shared_slow_or_far_are_told() {
        let root = root_with(&[
            ("sys/devices/system/cpu/online", "0-3"),
            ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-2\n"),
            ("sys/devices/system/cpu/isolated", "1\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/cpu/cpu0/node0/x", ""),
            ("sys/devices/system/cpu/cpu1/node0/x", ""),
            ("sys/devices/system/cpu/cpu2/node1/x", ""),
            ("sys/bus/pci/devices/0000:03:00.0/numa_node", "1\n"),
        ]);
        let facts = read_cores(&root);
        let of = |workers: &str| said(&cores(&config_with("device = \"03:00.0\"", workers), &facts));
        assert_eq!(
            of("cores = [7]")[0],
            "HARM     core 7: this machine has cores 0, 1, 2, 3: set workers.cores to some of them"
        );
        assert!(of("cores = [3]")[0].starts_with("HARM     core 3: this process may use cores 0, 1, 2 only"));
        assert_eq!(
            of("cores = [1, 2]\nidle = \"spin\""),
            [
                "ok       cores: workers run on 1, 2",
                "warning  isolation: other processes run on core 2, too, and delay packets: add isolcpus=1,2 to the kernel's command line",
                "warning  frequency: core 1 is slowed down when it looks idle, as one that polls may: cpupower -c 1 frequency-set -g performance",
                "warning  port p0: is on memory node 1 and core 1 is not, so that each packet crosses between processors: choose \
                 workers.cores among 2",
            ]
        );
    }

    #[test]
    fn memory_that_does_not_suffice_is_told_with_what_takes_it() {
        let root = root_with(&[
            ("proc/meminfo", "MemTotal: 4096000 kB\nMemAvailable:   400000 kB\n"),
            ("proc/self/mounts", "none /proc proc rw 0 0\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "100\n"),
        ]);
        let facts = read_memory(&root);
        assert_eq!(
            facts,
            MemoryFacts { available: 400_000 * 1024, hugepages_free: 200 * MB, hugepages_mounted: false }
        );
        let of = |dpdk: &str| said(&memory(&config_with("device = \"net_af_packet0,iface=eth0\"", dpdk), &facts));
        assert_eq!(
            of("cores = [0]"),
            [
                "HARM     memory: 404 MB are needed (connection table 20 MB, DPDK 256 MB, program 128 MB), 390 MB are available: lower \
              table.connections or dpdk.memory_mb, or free memory"
            ]
        );
        let huge = of("cores = [0]\n[dpdk]\nmemory = \"hugepages\"");
        assert_eq!(huge[0], "HARM     hugepages: 256 MB are needed and 200 MB are free: sysctl -w vm.nr_hugepages=128");
        assert!(huge[1].starts_with("ok       memory: 148 MB"), "{huge:?}");
    }
}
