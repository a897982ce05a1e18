//! Privileges of this process: the few capabilities that it names, and no others, for itself and everything that it
//! starts.
//!
//! | capability | for |
//! |---|---|
//! | `CAP_NET_ADMIN` | the VIPAs and the ARP settings, the tunnels' program on an interface, the kernel's notices of ended sockets |
//! | `CAP_BPF` | loading the programs |
//! | `CAP_SYS_ADMIN` | the same on kernels before 5.8, which have no `CAP_BPF`; entering other network namespaces |
//! | `CAP_SYS_PTRACE` | naming those as `/proc/PID/ns/net` |
//!
//! From here on it makes no difference whether the agent runs as root: root's other powers are capabilities too.

use std::fs;

use anyhow::Context;
use caps::{CapSet, Capability, CapsHashSet};

/// Kernels whose last capability is lower have no `CAP_BPF`, number 39 (Linux 5.8).
const CAP_BPF_NUMBER: u8 = 39;

/// Whether other network namespaces are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    Yes,
    No,
}

/// The capabilities to keep, of those that this process was given.
fn named(elsewhere: Elsewhere) -> CapsHashSet {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    let last = last.and_then(|text| text.trim().parse::<u8>().ok());
    let mut named: CapsHashSet = match last {
        Some(last) if last < CAP_BPF_NUMBER => [Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN].into(),
        _ => [Capability::CAP_NET_ADMIN, Capability::CAP_BPF].into(),
    };
    if elsewhere == Elsewhere::Yes {
        named.extend([Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE]);
    }
    named
}

/// Drops all other capabilities, permanently. To be called before any thread is started: each has capabilities of its
/// own.
pub(crate) fn drop_the_rest(elsewhere: Elsewhere) -> anyhow::Result<()> {
    let named = named(elsewhere);
    let permitted = caps::read(None, CapSet::Permitted).context("cannot read this process's capabilities")?;
    // A process that may not lower the bounding set could not raise anything by it either.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported() {
            if !named.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    // Programs that a check starts must have none: only ambient capabilities pass to a program of a user that is not
    // root.
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    caps::clear(None, CapSet::Inheritable)?;
    let kept: CapsHashSet = permitted.intersection(&named).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    nix::sys::prctl::set_no_new_privs().context("cannot forbid new privileges")?;
    let mut missing: Vec<String> = named.difference(&kept).map(ToString::to_string).collect();
    missing.sort();
    if !missing.is_empty() {
        tracing::warn!(
            "{} missing: what needs it will fail; run the agent as root, or give it {} (see the unit vipa-agent.service)",
            missing.join(" and "),
            if missing.len() == 1 { "that capability" } else { "those capabilities" }
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = include_str!("../../../dist/systemd/vipa-agent.service");

    /// The words after `key=` in the unit.
    fn unit(key: &str) -> Vec<&'static str> {
        let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("the unit has no {key}")).split_whitespace().collect()
    }

    #[test]
    fn the_unit_gives_what_the_agent_names() {
        let mut named: Vec<String> = named(Elsewhere::No).iter().map(ToString::to_string).collect();
        named.sort_by_key(|name| std::cmp::Reverse(name.clone()));
        for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            assert_eq!(unit(key), named, "{key}");
        }
        assert_eq!(unit("NoNewPrivileges"), ["yes"]);
        // Settings that would keep the agent from its work.
        for key in ["ProtectKernelTunables", "PrivateNetwork", "PrivateUsers"] {
            let set = UNIT.lines().any(|line| line.starts_with(&format!("{key}=yes")));
            assert!(!set, "{key} would keep it from this host's network");
        }
    }
}
