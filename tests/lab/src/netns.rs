//! Network namespaces: a switch, and hosts plugged into it by veth.
//!
//! ```text
//!   vipa-lab-PID-N-r1        vipa-lab-PID-N-sw        vipa-lab-PID-N-t1
//!   ┌────────────┐  veth  ┌──────────────────┐  veth  ┌────────────┐
//!   │       eth0 ├────────┤ r1    br0     t1 ├────────┤ eth0       │
//!   └────────────┘        └──────────────────┘        └────────────┘
//! ```
//!
//! The switch is a bridge in a namespace of its own, so that no firewall of the root namespace sees its traffic, and
//! no interface of ours ever exists in the root namespace. Every name carries the process that made it: two checkouts
//! can run side by side.
//!
//! A *guardian* cleans up: a small shell that waits for the end of its input and then ends every process of our
//! namespaces and deletes them. Its input ends when the lab is dropped, and also when our process dies in any way. The
//! next lab removes what a guardian that was killed too has left.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Process;

const PREFIX: &str = "vipa-lab-";

/// Ends everything that runs in the namespaces of lab `$1` and removes all that the lab left on this machine.
const REMOVE: &str = r#"
    remove() {
        for ns in $(ip netns list | cut -d' ' -f1 | grep "^$1-"); do
            for pid in $(ip netns pids "$ns"); do kill -9 "$pid"; done
            ip netns del "$ns"
        done
        rm -rf "/tmp/$1" /run/dpdk/"$1"-*
        for mount in $(awk '$3 == "hugetlbfs" { print $2 }' /proc/mounts); do rm -f "$mount/$1"-*; done
    }"#;

/// How many labs this process has made, so that each has its own name.
static MADE: Mutex<u32> = Mutex::new(0);

/// A switch and the hosts plugged into it. Removed when dropped.
pub struct Lab {
    tag: String,
    dir: PathBuf,
    logs: PathBuf,
    guardian: Child,
    hosts: Mutex<u8>,
}

impl Lab {
    /// `name` is the name of the folder for the logs: `target/lab/<name>`.
    pub fn new(name: &str) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "the lab makes network namespaces, which needs root: run it as root");
        sweep()?;
        let number = {
            let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *made += 1;
            *made
        };
        let tag = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = Path::new("/tmp").join(&tag);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let logs = crate::programs::folder()?.join("../lab").join(name);
        match fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot empty {}", logs.display()));
            }
            _ => fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?,
        }
        let logs = logs.canonicalize()?;
        let guardian = Command::new("sh")
            .args(["-c", &format!("{REMOVE}\ncat >/dev/null\nremove \"$1\" 2>/dev/null"), "guardian", &tag])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C at the terminal is for us; the guardian cleans up after it.
            .spawn()
            .context("cannot start a shell")?;
        let lab = Self { tag, dir, logs, guardian, hosts: Mutex::new(0) };
        let switch = lab.namespace("sw")?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        Ok(lab)
    }

    /// Unique on this machine while the lab lives.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A folder with a short path (Unix sockets need one), removed with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the processes' logs, which is kept after the lab is gone.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// A host plugged into the switch, `eth0` up with these addresses, all in one /24.
    pub fn host(&self, name: &str, addresses: &[Ipv4Addr]) -> Result<Host> {
        let namespace = self.namespace(name)?;
        let number = {
            let mut hosts = self.hosts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *hosts += 1;
            *hosts
        };
        let switch = format!("{}-sw", self.tag);
        let mac = format!("02:56:49:50:41:{number:02x}");
        ip(&[
            "-n", &switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns",
            &namespace,
        ])?;
        ip(&["-n", &switch, "link", "set", name, "master", "br0", "up"])?;
        let host = Host { name: name.into(), namespace, switch, logs: self.logs.clone() };
        // Packets reach DPDK ports, which take checksums and segments as they are on the wire.
        host.run("ethtool", ["-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"])?;
        host.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        host.sysctl("net.ipv4.conf.default.rp_filter", "0")?;
        host.sysctl("net.ipv4.ip_forward", "0")?;
        host.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        for address in addresses {
            host.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        }
        host.ip(&["link", "set", "eth0", "up"])?;
        Ok(host)
    }

    /// The switch itself, to count or drop what passes through it.
    #[must_use]
    pub fn switch(&self) -> Host {
        let namespace = format!("{}-sw", self.tag);
        Host { name: "sw".into(), namespace: namespace.clone(), switch: namespace, logs: self.logs.clone() }
    }

    fn namespace(&self, name: &str) -> Result<String> {
        let namespace = format!("{}-{name}", self.tag);
        ip(&["netns", "add", &namespace])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        if let Err(error) = self.guardian.wait() {
            eprintln!("the guardian of {} was lost: {error}", self.tag);
        }
    }
}

/// A namespace with one interface, `eth0`, plugged into the lab's switch.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    namespace: String,
    switch: String,
    logs: PathBuf,
}

impl Host {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's name, for messages that explain how to examine it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A command that will run in this host.
    pub fn command<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program.as_ref()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; returns its output, or an error with the output.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        finish(self.command(program, arguments))
    }

    /// Starts a process in this host; its output goes to `<logs>/<name>.log`, after what is there already.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        name: &str,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        self.start(name, self.command(program, arguments))
    }

    /// The same in this host's network alone: `ip netns exec` hides the machine's cgroups, to which BPF programs are
    /// attached.
    pub(crate) fn spawn_on_machine<S: AsRef<OsStr>>(
        &self,
        name: &str,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg(program.as_ref()).args(arguments);
        command.stdin(Stdio::null());
        self.start(name, command)
    }

    fn start(&self, name: &str, mut command: Command) -> Result<Process> {
        let log = self.logs.join(format!("{name}.log"));
        let file = open_log(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        Process::start(name, command, log)
    }

    /// Like [`Self::spawn`], but its input and output are ours; its standard error goes to the log.
    pub fn converse<S: AsRef<OsStr>>(
        &self,
        name: &str,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        let mut command = self.command(program, arguments);
        let log = self.logs.join(format!("{name}.log"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(open_log(&log)?);
        Process::start(name, command, log)
    }

    /// Runs `what` on a thread in this host's network. Sockets that it opens stay there.
    pub fn inside<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let path = format!("/run/netns/{}", self.namespace);
        let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let thread = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            anyhow::Ok(what())
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread in {path} has panicked"))?
    }

    /// `ip …` in this host.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.namespace], arguments].concat())
    }

    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run("sh", ["-c", &format!("echo '{value}' > /proc/sys/{}", key.replace('.', "/"))]).map(drop)
    }

    /// Unplugs the host at the switch, or plugs it in again.
    pub fn plug(&self, plug: Plug) -> Result<()> {
        let state = match plug {
            Plug::In => "up",
            Plug::Out => "down",
        };
        ip(&["-n", &self.switch, "link", "set", &self.name, state]).map(drop)
    }

    /// Removes the host's interface, as when its card is pulled out.
    pub fn remove_interface(&self) -> Result<()> {
        ip(&["-n", &self.switch, "link", "del", &self.name]).map(drop)
    }

    /// Makes the interface again with these addresses, after [`Self::remove_interface`].
    pub fn make_interface(&self, mac: &str, addresses: &[Ipv4Addr]) -> Result<()> {
        let Self { name, namespace, switch, .. } = self;
        ip(&[
            "-n", switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "address", mac, "netns",
            namespace,
        ])?;
        ip(&["-n", switch, "link", "set", name, "master", "br0", "up"])?;
        self.run("ethtool", ["-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"])?;
        for address in addresses {
            self.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        }
        self.ip(&["link", "set", "eth0", "up"]).map(drop)
    }

    /// The Ethernet address of its interface.
    pub fn mac(&self) -> Result<String> {
        Ok(self.run("cat", ["/sys/class/net/eth0/address"])?.trim().to_owned())
    }

    /// Counts the packets at a hook of IPv4 (`input`, `output` …) that an expression of nftables matches, from now on.
    pub fn count(&self, hook: &str, matching: &str) -> Result<Counter> {
        self.nft(&format!(
            "add table ip count-{hook}\nadd counter ip count-{hook} seen\n\
             add chain ip count-{hook} watch {{ type filter hook {hook} priority 0; }}\n\
             add rule ip count-{hook} watch {matching} counter name seen\n"
        ))?;
        Ok(Counter { host: self.clone(), table: format!("count-{hook}") })
    }

    /// Loads nftables rules (the body of a file for `nft -f`) into this host.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let file = self.logs.join(format!("{}.nft", self.name));
        fs::write(&file, rules)?;
        self.run("nft", [OsStr::new("-f"), file.as_os_str()]).map(drop)
    }
}

/// What [`Host::count`] counts.
#[derive(Clone, Debug)]
pub struct Counter {
    host: Host,
    table: String,
}

impl Counter {
    pub fn packets(&self) -> Result<u64> {
        crate::packet_ledger::packets(&self.host, "ip", &self.table)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plug {
    In,
    Out,
}

fn open_log(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).with_context(|| format!("cannot write {}", path.display()))
}

fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    finish(command)
}

/// Runs `command` to its end; returns its standard output.
pub(crate) fn finish(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    // `vipactl` ends with this status when its answer needs attention.
    const LOOK: i32 = 5;
    if !output.status.success() && output.status.code() != Some(LOOK) {
        let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        bail!(
            "{} {}: {}: {}",
            command.get_program().to_string_lossy(),
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes what labs of dead processes have left.
fn sweep() -> Result<()> {
    let mut tags: Vec<String> = Vec::new();
    for line in ip(&["netns", "list"])?.lines() {
        let Some((process, rest)) = line.strip_prefix(PREFIX).and_then(|name| name.split_once('-')) else { continue };
        let number = rest.split('-').next().unwrap_or_default();
        let tag = format!("{PREFIX}{process}-{number}");
        if !Path::new("/proc").join(process).exists() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    for tag in tags {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{REMOVE}\nremove \"$1\" 2>/dev/null; true"), "sweep", &tag]);
        finish(command)?;
    }
    Ok(())
}
