//! A host of its own, with the agent on it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use vipa_transport::{CertifiedRoles, pki};

use crate::router::{HERE, HERE6, ROUTERS};

/// Nothing here takes this long on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const IPV4: &str = "/proc/sys/net/ipv4";

/// A network namespace, a cluster's certificates and the agent's configuration.
#[derive(Debug)]
pub(crate) struct Host {
    folder: PathBuf,
}

/// Runs `test` on a host of its own.
pub(crate) fn on_a_host(test: impl FnOnce(&Host) + Send + 'static) {
    in_a_thread(|| {
        enter_a_namespace();
        test(&Host::new());
    });
}

/// As `on_a_host`, twice: connections are followed by BPF, and by sock_diag alone.
pub(crate) fn on_a_host_by_both(test: impl Fn(&Host) + Copy + Send + 'static) {
    for observe in ["bpf", "diag"] {
        in_a_thread(move || {
            enter_a_namespace();
            let host = Host::new();
            host.configure(&format!("observe = \"{observe}\"\n"));
            eprintln!("observed by {observe}:");
            test(&host);
        });
    }
}

/// As `on_a_host`, with so small a table of connections in the kernel that many share a bucket, as on a busy host.
pub(crate) fn on_a_crowded_host(test: impl FnOnce(&Host) + Send + 'static) {
    in_a_thread(|| {
        enter_a_namespace();
        fs::write(format!("{IPV4}/tcp_child_ehash_entries"), "16").expect("Linux 6.1 or later");
        enter_a_namespace();
        test(&Host::new());
    });
}

/// Threads and processes started by the thread share its namespace.
pub(crate) fn in_a_thread(act: impl FnOnce() + Send + 'static) {
    assert!(geteuid().is_root(), "these tests make network namespaces: run them as root, with `make test-agent`");
    let thread = thread::Builder::new().name("host".into()).spawn(act).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn enter_a_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
}

impl Host {
    pub(crate) fn new() -> Self {
        run("ip", "link set lo up");
        run("ip", "address add 10.9.0.1/24 dev lo");
        // Settings of a host before Vipa is installed; a namespace may begin with the machine's own.
        set_sysctl("conf/all/arp_ignore", "0");
        set_sysctl("conf/all/arp_announce", "0");
        // An overloaded kernel drops packets on `lo`, and a reset is not repeated; its connection, half closed, would
        // outlive the test's patience by as much again.
        set_sysctl("tcp_fin_timeout", "10");
        let thread = nix::unistd::gettid();
        let folder = std::env::temp_dir().join(format!("vipa-agent-{}-{thread}", std::process::id()));
        fs::create_dir(&folder).expect("a temporary folder");
        let host = Self { folder };
        pki::init(host.folder()).expect("an authority");
        // Every address that a test gives the agent.
        let addresses = [HERE, HERE6].map(|address| address.parse().expect("an address"));
        let target = CertifiedRoles::target(addresses);
        for (node, roles) in [("r1", CertifiedRoles::router()), ("r2", CertifiedRoles::router()), ("t1", target)] {
            pki::issue(host.folder(), &node.parse().expect("a name"), &roles).expect("a certificate");
        }
        let routers: String = ROUTERS.iter().map(|(name, address)| format!("{name} = \"{address}\"\n")).collect();
        let config = format!(
            r#"
[node]
name = "t1"
state_dir = "{folder}/state"
admin = "{folder}/t1.sock"
[pki]
ca = "ca.pem"
certificate = "t1.pem"
key = "t1.key"
[cluster]
name = "test"
key = "000102030405060708090a0b0c0d0e0f"
voters = ["r1", "r2", "t1"]
lease_ms = 400
[cluster.routers]
{routers}
[agent]
address = "10.9.0.31"
"#,
            folder = host.folder().display()
        );
        fs::write(host.config(), config).expect("the configuration is written");
        host
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder().join("t1.toml")
    }

    /// Adds lines to the next agent's section.
    pub(crate) fn configure(&self, lines: &str) {
        let text = fs::read_to_string(self.config()).expect("the configuration");
        fs::write(self.config(), format!("{text}{lines}\n")).expect("it is written");
    }

    /// Makes the next agent put VIPAs on this interface.
    pub(crate) fn configure_interface(&self, interface: &str) {
        self.configure(&format!("interface = \"{interface}\""));
    }

    /// Makes the next agent read this network namespace too.
    pub(crate) fn configure_namespace(&self, path: &str) {
        self.configure(&format!("namespaces = [\"{path}\"]"));
    }

    /// Output of `vipa-agent --print-setup`.
    pub(crate) fn setup(&self) -> String {
        run(env!("CARGO_BIN_EXE_vipa-agent"), &format!("--print-setup {}", self.config().display()))
    }

    /// Output of `vipa-agent status` of the running agent.
    pub(crate) fn status(&self) -> String {
        run(env!("CARGO_BIN_EXE_vipa-agent"), &format!("status --config {}", self.config().display()))
    }

    /// Output of `vipa-agent status` as JSON.
    pub(crate) fn status_for_programs(&self) -> serde_json::Value {
        let said =
            run(env!("CARGO_BIN_EXE_vipa-agent"), &format!("status --json --config {}", self.config().display()));
        serde_json::from_str(&said).expect("JSON")
    }

    /// Runs `vipa-agent cleanup`, which must succeed; returns its output.
    pub(crate) fn clean_up(&self) -> String {
        let output = self.try_clean_up();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn try_clean_up(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vipa-agent"));
        command.args(["cleanup", "--config"]).arg(self.config()).output().expect("it starts")
    }

    /// Begins `vipa-agent drain …` against the running agent.
    pub(crate) fn drain(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_vipa-agent"))
            .args(["drain", "--config"])
            .arg(self.config())
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    }

    /// Gives the next agent this address, and makes it accept tunnels at this interface.
    pub(crate) fn configure_tunnels(&self, address: &str, interface: &str) {
        let text = fs::read_to_string(self.config()).expect("the configuration");
        let (head, _) = text.split_once("[agent]").expect("the section");
        let text = format!("{head}[agent]\naddress = \"{address}\"\ndecap_interfaces = [\"{interface}\"]\n");
        fs::write(self.config(), text).expect("it is written");
    }

    /// The logs of this host's agents.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder().join("agent.log")).expect("a log")
    }

    /// The agent's record of its changes to this host.
    pub(crate) fn kept_changes(&self) -> PathBuf {
        self.folder().join("state/host.json")
    }

    pub(crate) fn start_agent(&self) -> Agent {
        self.start(Command::new(env!("CARGO_BIN_EXE_vipa-agent")))
    }

    /// Starts the agent as a user that is not root, with the two capabilities that it names and no others.
    pub(crate) fn start_unprivileged_agent(&self) -> Agent {
        self.start_with("-all,+net_admin,+bpf")
    }

    /// The same on a host that allows no BPF.
    pub(crate) fn start_agent_without_bpf(&self) -> Agent {
        self.start_with("-all,+net_admin")
    }

    fn start_with(&self, capabilities: &str) -> Agent {
        // The folder of the build may be closed to other users.
        let program = self.folder().join("vipa-agent");
        fs::copy(env!("CARGO_BIN_EXE_vipa-agent"), &program).expect("it is copied");
        run("chown", &format!("-R nobody {}", self.folder().display()));
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
            .args(["--inh-caps", capabilities, "--ambient-caps", capabilities])
            .arg(program);
        self.start(command)
    }

    fn start(&self, mut command: Command) -> Agent {
        let log = self.folder().join("agent.log");
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let child = command
            .arg("--config")
            .arg(self.config())
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the agent starts");
        Agent { child, log }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Sends SIGTERM; returns when the agent has ended by itself and successfully.
    pub(crate) fn stop(self) {
        self.signal(Signal::SIGTERM);
        self.until_ended();
    }

    /// A line of its `/proc/PID/status`.
    pub(crate) fn status(&self, key: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.expect("the kernel tells").trim().to_owned()
    }

    /// A number of its `/proc/PID/stat`, counted from the one after its name, which is 0.
    pub(crate) fn stat(&self, index: usize) -> u32 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let (_, numbers) = stat.rsplit_once(") ").expect("a name in brackets");
        numbers.split(' ').nth(index).and_then(|number| number.parse().ok()).expect("the kernel tells")
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Returns when it has ended by itself and successfully.
    pub(crate) fn until_ended(mut self) {
        let mut ended = None;
        until("the agent ends", || {
            ended = self.child.try_wait().expect("a child of ours");
            ended.is_some()
        });
        assert!(ended.as_ref().is_some_and(ExitStatus::success), "it ended with {ended:?}");
    }

    /// SIGKILL: a crash.
    pub(crate) fn crash(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child of ours");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _: (io::Result<()>, _) = (self.child.kill(), self.child.wait());
        if thread::panicking() {
            eprintln!("the agent said:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Waits until `is_so`.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command that must succeed; returns its output.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("the program is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How many times an address is on `lo`.
pub(crate) fn times_on_lo(address: &str) -> usize {
    run("ip", "-o -4 address show dev lo").split_whitespace().filter(|word| *word == address).count()
}

pub(crate) fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("{IPV4}/{name}")).expect("the kernel has it").trim().to_owned()
}

pub(crate) fn set_sysctl(name: &str, value: &str) {
    fs::write(format!("{IPV4}/{name}"), value).expect("root may");
}
