//! What is found out by trying: the address that the node listens at, its peers, and the way to targets behind tunnels.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use vipa_model::config::Config;
use vipa_transport::{Identity, ReachResult, reach};

use crate::{Diagnosis, Root};

/// A peer that has not answered by then does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// Targets that are asked; of more, the first.
const MOST_TARGETS: usize = 32;
/// IPv4 and ICMP headers of a ping; and of IPv6.
const PING_OVERHEAD: (u16, u16) = (28, 48);

/// Whether the address is this machine's and its port free.
pub(crate) fn listen(config: &Config, root: &Root) -> Option<Diagnosis> {
    let address = config.node.listen?;
    let subject = format!("UDP {address}");
    Some(match UdpSocket::bind(address) {
        Ok(_) => Diagnosis::ok(subject, "is free"),
        Err(error) => match error.kind() {
            io::ErrorKind::AddrInUse => match holder(root, address) {
                Some((pid, command)) if command.contains("vipad") => {
                    Diagnosis::ok(subject, format!("process {pid} has it ({command})"))
                }
                Some((pid, command)) => Diagnosis::harm(
                    subject,
                    format!(
                        "process {pid} has it ({command}): stop that, or change node.listen and [cluster.routers] on every node"
                    ),
                ),
                None => Diagnosis::harm(subject, "another process has it: `ss -lunp` as root says which"),
            },
            io::ErrorKind::AddrNotAvailable => Diagnosis::harm(
                subject,
                format!("no interface of this machine has {}: ip address add it, or change node.listen", address.ip()),
            ),
            _ => Diagnosis::harm(subject, format!("cannot listen there: {error}")),
        },
    })
}

/// The process that has a UDP port, and its command: by the socket's inode in /proc/net/udp and among the open files of all processes.
fn holder(root: &Root, address: SocketAddr) -> Option<(u32, String)> {
    let table = root.text(if address.is_ipv4() { "proc/net/udp" } else { "proc/net/udp6" })?;
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.rsplit_once(':')?;
        let is_port = u16::from_str_radix(port, 16).ok()? == address.port();
        let is_ip = ip.bytes().all(|digit| digit == b'0') || ip == kernel_hex(address.ip());
        (is_port && is_ip).then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })?;
    let wanted = format!("socket:[{inode}]");
    let pids = root.names("proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    let has = |pid: &u32| {
        let folder = format!("proc/{pid}/fd");
        root.names(&folder).iter().any(|fd| root.link(&format!("{folder}/{fd}")).as_deref() == Some(&wanted))
    };
    let pid = pids.into_iter().find(has)?;
    let command = root.text(&format!("proc/{pid}/cmdline")).unwrap_or_default();
    Some((pid, vipa_model::printable(command.replace('\0', " ").trim(), 120)))
}

/// As /proc/net/udp has it: words of 32 bits in the machine's byte order.
fn kernel_hex(address: IpAddr) -> String {
    let octets: Vec<u8> = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
    octets.chunks(4).map(|bytes| format!("{:08X}", word(bytes))).collect()
}

/// Asks every other router for a link.
pub(crate) fn peers(config: &Config) -> Vec<Diagnosis> {
    let pki = &config.pki;
    // Why it cannot be loaded is said already.
    let Ok(identity) = Identity::load(&pki.ca, &pki.certificate, &pki.key) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let peers = config.cluster.routers.iter().filter(|(name, _)| *name != config.node.name);
    runtime.block_on(futures::future::join_all(peers.map(|(name, address)| {
        let identity = &identity;
        async move {
            let subject = format!("router {name} at {address}");
            let me = config.node.name.as_str();
            match reach(identity, name, *address, PATIENCE).await {
                Ok(ReachResult::Answers) => {
                    Diagnosis::ok(subject, "answers, and each side takes the other's certificate")
                }
                Ok(ReachResult::Refuses(why)) => Diagnosis::harm(subject, why),
                Ok(ReachResult::Silent) => Diagnosis::warning(
                    subject,
                    format!(
                        "does not answer: start vipad there, and let UDP port {} from {me} through its firewall",
                        address.port()
                    ),
                ),
                Ok(ReachResult::Unreachable(why)) => Diagnosis::harm(
                    subject,
                    format!("this machine has no way there ({why}): ip route get {}", address.ip()),
                ),
                Err(error) => Diagnosis::warning(subject, format!("could not be asked: {error}")),
            }
        }
    })))
}

/// Sends each target behind a tunnel a ping as long as a packet in its tunnel, which nobody may cut.
pub(crate) fn tunnels(config: &Config) -> Vec<Diagnosis> {
    let mut targets: Vec<IpAddr> = Vec::new();
    for service in config.vipas.iter().flat_map(|vipa| vipa.services.iter().flatten()) {
        let tunnelled = service.candidates.iter().filter(|target| service.delivery.forwarding_to(**target).is_tunnel());
        targets.extend(tunnelled);
    }
    targets.sort();
    targets.dedup();
    let mtu = config.ports.iter().map(|port| port.mtu).max().unwrap_or_default();
    targets.into_iter().take(MOST_TARGETS).map(|target| tunnel(target, mtu)).collect()
}

fn tunnel(target: IpAddr, mtu: u16) -> Diagnosis {
    let subject = format!("tunnel to {target}");
    match ping(target, mtu) {
        Ok(true) => Diagnosis::ok(subject, format!("packets of {mtu} bytes arrive uncut")),
        Ok(false) => match ping(target, 576) {
            Ok(true) => {
                let narrower = [1_492, 1_480, 1_450, 1_400, 1_280].into_iter().filter(|size| *size < mtu);
                let fits = narrower.into_iter().find(|size| ping(target, *size).unwrap_or(false)).unwrap_or(576);
                let text = format!(
                    "answers, but packets of {mtu} bytes do not arrive, and of {fits} do: set the port's mtu = {fits}, or raise the MTU on the way"
                );
                Diagnosis::harm(subject, text)
            }
            _ => Diagnosis::warning(
                subject,
                format!("{target} does not answer pings from this host's kernel, so that the way's MTU is not known"),
            ),
        },
        Err(error) => Diagnosis::warning(subject, format!("cannot ping: {error}; apt-get install iputils-ping")),
    }
}

/// Whether a packet of `size` bytes that nobody may cut is answered.
fn ping(target: IpAddr, size: u16) -> io::Result<bool> {
    let overhead = if target.is_ipv4() { PING_OVERHEAD.0 } else { PING_OVERHEAD.1 };
    let data = size.saturating_sub(overhead).to_string();
    let mut command = Command::new("ping");
    command.args(["-q", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", &data]).arg(target.to_string());
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DiagnosisLevel, tests::config};

    #[test]
    fn a_port_that_is_taken_is_told_with_who_has_it() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut config = config("device = \"net_memif0\"");
        config.node.listen = Some(socket.local_addr().unwrap());
        let taken = listen(&config, &Root::default()).unwrap();
        assert_eq!(taken.level, DiagnosisLevel::Harm);
        assert!(taken.text.contains(&format!("process {} has it (", std::process::id())), "{taken}");
        drop(socket);
        assert_eq!(listen(&config, &Root::default()).unwrap().level, DiagnosisLevel::Ok);
        config.node.listen = Some("192.0.2.77:7400".parse().unwrap());
        let elsewhere = listen(&config, &Root::default()).unwrap();
        assert!(elsewhere.text.starts_with("no interface of this machine has 192.0.2.77"), "{elsewhere}");
    }

    #[test]
    fn addresses_are_written_as_the_kernel_writes_them() {
        assert_eq!(u32::from_str_radix(&kernel_hex([127, 0, 0, 1].into()), 16).unwrap().to_ne_bytes(), [127, 0, 0, 1]);
        assert_eq!(kernel_hex(std::net::Ipv6Addr::UNSPECIFIED.into()).len(), 32);
    }
}
