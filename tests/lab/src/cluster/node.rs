//! The nodes of a cluster: their hosts, and the processes in them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::{
    CONNECTIONS_PER_SERVER, Cluster, PATIENCE, Plan, Ports, SERVICE_PORT, VIPA, VIPA6,
    config::{self, control_address, port_address, target_address},
};
use crate::{
    load::{Server, clock},
    netns::{Host, Lab, finish},
    process::{Process, wait},
    programs,
};

/// The number, as a target, of a host that does not belong to the cluster.
const FOREIGN: u8 = 19;

/// A host with a `vipad`.
pub struct Router {
    host: Host,
    number: u8,
    ports: Ports,
    config: PathBuf,
    socket: PathBuf,
    process: Option<Process>,
    /// Killed, and perhaps not yet gone.
    killed: Option<Process>,
    /// Starts so far, all of them in one log.
    starts: usize,
    /// When the present process began, milliseconds since 1970.
    pub(super) started_unix_ms: u64,
}

impl Router {
    pub(super) fn prepare(lab: &Lab, plan: &Plan, number: u8) -> Result<Self> {
        let name = format!("r{number}");
        let host = lab.host(&name, &[])?;
        let address = format!("{}/24", control_address(number));
        match plan.ports {
            Ports::AfPacket => {
                host.ip(&["address", "add", &address, "dev", "eth0"])?;
            }
            Ports::Tap => {
                host.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"])?;
                host.ip(&["link", "set", "eth0", "master", "br0"])?;
                host.ip(&["address", "add", &address, "dev", "br0"])?;
                host.ip(&["link", "set", "br0", "up"])?;
            }
        }
        let config = config::write_router(lab, plan, number)?;
        let socket = lab.dir().join(format!("{name}.sock"));
        Ok(Self {
            host,
            number,
            ports: plan.ports,
            config,
            socket,
            process: None,
            killed: None,
            starts: 0,
            started_unix_ms: 0,
        })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.host.name()
    }

    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The address at which the other nodes reach it.
    #[must_use]
    pub fn control_address(&self) -> Ipv4Addr {
        control_address(self.number)
    }

    /// The address of its DPDK port.
    #[must_use]
    pub fn port_address(&self) -> Ipv4Addr {
        port_address(self.number)
    }

    /// Starts `vipad`, which must not be running.
    pub fn start(&mut self) -> Result<()> {
        if let Some(mut killed) = self.killed.take() {
            killed.kill()?; // Until it is gone: its memory and its port must be free.
        }
        if self.process.is_some() {
            bail!("{} runs already", self.name());
        }
        self.started_unix_ms = u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
        let arguments = ["--config".into(), self.config.display().to_string()];
        let mut process = self.host.spawn(self.name(), programs::path("vipad")?, arguments)?;
        self.starts += 1;
        if self.ports == Ports::Tap {
            self.plumb(&mut process)?;
        }
        self.process = Some(process);
        Ok(())
    }

    /// Bridges the TAP device that `vipad` makes to the wire.
    fn plumb(&self, process: &mut Process) -> Result<()> {
        // Until the port is open, DPDK gives the kernel's end the port's address again.
        wait("vipad to open its TAP port", PATIENCE, || {
            let opened = process.tail(usize::MAX).matches("the port is open").count();
            (opened >= self.starts || process.ended().is_some()).then_some(())
        })?;
        // The port keeps its address. If the kernel's end had the same, the bridge would take the port's packets for
        // its own.
        let mac = format!("02:56:49:50:54:{:02x}", self.number);
        let plumb = || {
            self.host.ip(&["link", "set", "dtap0", "address", &mac])?;
            // The kernel's default of 500 packets is less than a burst of 2,000 clients.
            self.host.ip(&["link", "set", "dtap0", "txqueuelen", "10000"])?;
            self.host.ip(&["link", "set", "dtap0", "master", "br0", "up"])
        };
        plumb().map(drop).with_context(|| format!("{}'s log ends:\n{}", self.name(), process.tail(20)))
    }

    /// Sends SIGKILL; returns the moment, see [`clock`]. Does not wait until the last of its memory is freed.
    pub fn kill(&mut self) -> Result<u64> {
        let moment = clock();
        self.running()?.signal(Signal::SIGKILL)?;
        self.killed = self.process.take();
        Ok(moment)
    }

    /// Sends SIGTERM, and waits for its orderly end.
    pub fn stop(&mut self) -> Result<()> {
        self.running()?.stop(PATIENCE)?;
        self.process = None;
        Ok(())
    }

    /// Sends SIGHUP: it reads its configuration again.
    pub fn hang_up(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGHUP)
    }

    /// Whether it was started, and neither stopped nor killed since.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The process itself, to examine its threads.
    pub fn process_id(&mut self) -> Result<u32> {
        Ok(self.running()?.id())
    }

    /// Everything that it has logged since it was started, dead or alive.
    pub fn log_text(&self) -> Result<String> {
        let process = self.process.as_ref().or(self.killed.as_ref());
        process.map(|process| process.tail(usize::MAX)).with_context(|| format!("{} was not started", self.name()))
    }

    /// Stops the process with SIGSTOP, until [`Self::go_on`].
    pub fn freeze(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGSTOP)
    }

    pub fn go_on(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    fn running(&mut self) -> Result<&mut Process> {
        let name = self.host.name().to_string();
        self.process.as_mut().with_context(|| format!("{name} does not run"))
    }

    /// How its process ended, if it has ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let status = process.ended()?;
        Some(format!("{} ended: {status}\n{}", process.name(), process.tail(20)))
    }

    /// Waits until it has ended by itself with a failure; returns its last log lines. It can be started again.
    pub fn wait_failure(&mut self, patience: Duration) -> Result<String> {
        let end = wait(&format!("{} to end", self.name()), patience, || self.ended())?;
        let status = self.running()?.ended();
        if status.is_none_or(|status| status.success()) {
            bail!("it ended well: {end}");
        }
        self.process = None;
        Ok(end)
    }

    /// Output of `vipactl …` at this router, as a person sees it.
    pub fn vipactl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(programs::path("vipactl")?);
        command.arg("--socket").arg(&self.socket).args(arguments);
        finish(command)
    }

    /// The same in the background: an order may take long, and this router may be paused.
    pub fn vipactl_beside(&self, arguments: &[&str]) -> Result<JoinHandle<Result<String>>> {
        let mut command = Command::new(programs::path("vipactl")?);
        command.arg("--socket").arg(&self.socket).args(arguments);
        Ok(thread::spawn(|| finish(command)))
    }

    /// Runs `vipad --check` on its configuration.
    pub fn check(&self) -> Result<String> {
        let mut command = Command::new(programs::path("vipad")?);
        command.arg("--check").arg(&self.config);
        finish(command)
    }

    #[must_use]
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }
}

/// Gives a host the address `fd77::<number>`.
pub(super) fn enable_ipv6(host: &Host, number: u16) -> Result<()> {
    for (key, value) in [("all.disable_ipv6", "0"), ("eth0.accept_ra", "0")] {
        host.sysctl(&format!("net.ipv6.conf.{key}"), value)?;
    }
    let number = if number == 51 { 0x51 } else { number };
    host.ip(&["-6", "address", "add", &format!("fd77::{number:x}/64"), "dev", "eth0", "nodad"]).map(drop)
}

/// A host with a `vipa-agent` and servers.
pub struct Target {
    host: Host,
    number: u8,
    config: PathBuf,
    agent: Option<Process>,
    /// Instead of an agent: one that reports this many connections.
    replays: Option<u32>,
    servers: Vec<Server>,
    server_count: usize,
    /// The address on which its servers listen: any address, of both families where there are two.
    any: IpAddr,
}

impl Target {
    pub(super) fn prepare(lab: &Lab, plan: &Plan, number: u8) -> Result<Self> {
        let host = lab.host(&format!("t{number}"), &[target_address(number)])?;
        // A takeover opens many connections at once; a full backlog would look like a router's fault.
        host.sysctl("net.core.somaxconn", "8192")?;
        host.sysctl("net.ipv4.tcp_max_syn_backlog", "8192")?;
        if plan.way.has_ipv6() {
            enable_ipv6(&host, 0x30 + u16::from(number))?;
        }
        let any = if plan.way.has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        if plan.way.forwarding == "nat" {
            // Answers to the client must pass the router that owns the VIPA.
            host.ip(&["route", "add", "10.77.0.51/32", "via", &VIPA.to_string()])?;
            if plan.way.has_ipv6() {
                host.ip(&["-6", "route", "add", "fd77::51/128", "via", &VIPA6.to_string()])?;
            }
        }
        let config = config::write_target(lab, plan, number)?;
        let server_count = plan.connections.div_ceil(CONNECTIONS_PER_SERVER).max(1);
        let replays = plan.replays.get(&number).copied();
        let mut target = Self { host, number, config, agent: None, replays, servers: Vec::new(), server_count, any };
        if !plan.silent.contains(&number) && replays.is_none() {
            target.start_servers()?;
        }
        Ok(target)
    }

    pub(super) fn foreign(lab: &Lab, plan: &Plan, name: &str) -> Result<Self> {
        let number = FOREIGN;
        let host = lab.host("foreign", &[target_address(number)])?;
        config::issue(lab, "foreign", [(name.to_string(), Some(target_address(number).into()))])?;
        fs::copy(lab.dir().join("pki/ca.pem"), lab.dir().join("foreign/ca.pem"))?;
        let config = config::write_agent(lab, plan, name, target_address(number).into(), "foreign")?;
        let mut target = Self {
            host,
            number,
            config,
            agent: None,
            replays: None,
            servers: Vec::new(),
            server_count: 0,
            any: Ipv4Addr::UNSPECIFIED.into(),
        };
        target.start_agent()?;
        Ok(target)
    }

    /// An agent and a server on a router's own host.
    pub(super) fn on_router(lab: &Lab, plan: &Plan, host: Host) -> Result<Self> {
        let config = config::write_agent(lab, plan, Cluster::OWN_TARGET, port_address(1).into(), "pki")?;
        let mut target = Self {
            host,
            number: 0,
            config,
            agent: None,
            replays: None,
            servers: Vec::new(),
            server_count: 1,
            any: Ipv4Addr::UNSPECIFIED.into(),
        };
        target.start_servers()?;
        target.start_agent()?;
        Ok(target)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.host.name()
    }

    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        target_address(self.number)
    }

    pub fn start_agent(&mut self) -> Result<()> {
        // On a router's host the name is the router's.
        let name = if self.number == 0 { Cluster::OWN_TARGET } else { self.host.name() };
        let config = self.config.display().to_string();
        self.agent = Some(match self.replays {
            None => self.host.spawn_on_machine(name, programs::path("vipa-agent")?, ["--config", &config])?,
            Some(count) => {
                let arguments = ["replay", "--config", &config, "--connections", &count.to_string()];
                self.host.spawn(name, programs::path("vipa-load")?, arguments)?
            }
        });
        Ok(())
    }

    /// Sets up a host without an agent as an administrator does: the VIPA on `lo`, without ARP answers for it.
    pub(super) fn serve_without_agent(&self) -> Result<()> {
        self.host.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        self.host.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
        self.host.ip(&["address", "add", &format!("{VIPA}/32"), "dev", "lo"]).map(drop)
    }

    /// Sends SIGKILL to the agent; the servers and their connections live on.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.kill()
    }

    /// Whether its agent was neither stopped nor killed since its start, and reports what the kernel holds.
    pub(super) fn is_followed(&self) -> bool {
        self.agent.is_some() && self.replays.is_none()
    }

    /// Sends SIGHUP to the agent.
    pub fn hang_up_agent(&mut self) -> Result<()> {
        self.agent.as_ref().context("the agent does not run")?.signal(Signal::SIGHUP)
    }

    /// Path of the agent's configuration.
    #[must_use]
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// Sends SIGTERM to the agent, and waits for its orderly end.
    pub fn stop_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.stop(PATIENCE)
    }

    /// The agent's process, if it runs.
    #[must_use]
    pub fn agent_id(&self) -> Option<u32> {
        self.agent.as_ref().map(Process::id)
    }

    /// Undoes what a stopped agent has left on the host.
    pub fn clean_up(&self) -> Result<String> {
        let arguments = ["cleanup".as_ref(), "--config".as_ref(), self.config.as_os_str()];
        finish(self.host.command(programs::path("vipa-agent")?, arguments))
    }

    pub fn freeze_agent(&mut self) -> Result<()> {
        self.agent.as_ref().context("the agent does not run")?.signal(Signal::SIGSTOP)
    }

    pub fn thaw_agent(&mut self) -> Result<()> {
        self.agent.as_ref().context("the agent does not run")?.signal(Signal::SIGCONT)
    }

    /// Starts the servers, on any address, and waits until they listen.
    pub fn start_servers(&mut self) -> Result<()> {
        for _ in 0..self.server_count {
            self.servers.push(Server::start(&self.host, (self.any, SERVICE_PORT).into())?);
        }
        Ok(())
    }

    /// Sends SIGKILL to the servers: the kernel resets their connections.
    pub fn kill_servers(&mut self) -> Result<()> {
        for mut server in self.servers.drain(..) {
            server.kill()?;
        }
        Ok(())
    }

    /// Sends SIGSTOP to the servers: the kernel still opens connections for them, and none is accepted.
    pub fn freeze_servers(&mut self) -> Result<()> {
        self.servers.iter().try_for_each(|server| server.signal(Signal::SIGSTOP))
    }

    pub fn thaw_servers(&mut self) -> Result<()> {
        self.servers.iter().try_for_each(|server| server.signal(Signal::SIGCONT))
    }

    /// Runs `vipa-agent drain`; returns its output once the agent has stopped.
    pub fn drain_agent(&mut self) -> Result<String> {
        let mut command = Command::new(programs::path("vipa-agent")?);
        command.args(["drain", "--timeout", "60", "--config"]).arg(&self.config);
        let said = finish(command)?;
        self.agent = None;
        Ok(said)
    }

    /// How its agent ended, if it has ended by itself.
    pub fn ended(&mut self) -> Option<String> {
        let agent = self.agent.as_mut()?;
        let status = agent.ended()?;
        Some(format!("the agent of {} ended: {status}\n{}", agent.name(), agent.tail(20)))
    }

    /// Connections that its servers hold now, and faults that they have seen.
    #[must_use]
    pub fn served(&self) -> Served {
        let mut served = Served::default();
        for server in &self.servers {
            let report = server.report();
            served.open += report.open;
            served.accepted += report.accepted;
            served.requests += report.requests;
            served.broken += report.broken;
            served.faults.extend(report.faults);
        }
        served
    }

    /// Whether this host's kernel has `address` on any interface.
    pub fn has_address(&self, address: impl Into<IpAddr>) -> Result<bool> {
        let address = address.into();
        let length = if address.is_ipv4() { 32 } else { 128 };
        Ok(self.host.ip(&["-o", "address", "show"])?.contains(&format!(" {address}/{length} ")))
    }

    /// Waits until `lo` carries the VIPA, or does not any more.
    pub fn wait_address(&self, address: impl Into<IpAddr>, presence: Presence) -> Result<()> {
        let address = address.into();
        let what = format!("{} to have {address} {presence:?}", self.name());
        wait(&what, Duration::from_secs(10), || {
            (self.has_address(address).ok()? == (presence == Presence::Present)).then_some(())
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Present,
    Absent,
}

/// The sum of the reports of a target's servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub open: u64,
    pub accepted: u64,
    /// Connections of one request that ended as the request asked.
    pub requests: u64,
    pub broken: u64,
    pub faults: Vec<String>,
}
