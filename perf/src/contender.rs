//! Processes that are measured against each other on one core: ours, and `dpdk-testpmd`.
//!
//! All are started first; then each runs for a moment in turn, again and again, while the others are stopped (SIGSTOP). So a
//! disturbance of the machine meets all alike, and caches are warm again after the first tenth of each moment.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    machine::Machine,
    subject::{BUFFERS, DESCRIPTORS, Job, MEMORY_MB},
};

const WARM_UP: Duration = Duration::from_millis(40);
const MOMENT: Duration = Duration::from_millis(250);

/// A process, and how it is asked for what it has sent.
pub(crate) struct Contender {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    kind: Kind,
    log: std::path::PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    /// By its number, the port that packets leave by.
    Testpmd(u16),
}

impl Contender {
    /// One of our own, which says "ready" when it is.
    pub(crate) fn ours(machine: &Machine, job: &Job) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--subject").arg(serde_json::to_string(job)?);
        let mut ours = Self::start(command, Kind::Ours, &machine.scratch)?;
        ours.read_until(|line| line == "ready")?;
        Ok(ours)
    }

    /// `dpdk-testpmd --forward-mode=macswap` on one core.
    pub(crate) fn testpmd(machine: &Machine, devices: &[String]) -> anyhow::Result<Self> {
        // Its answers would stay in its buffer otherwise.
        let mut command = Command::new("stdbuf");
        command
            .args(["--output=L", "dpdk-testpmd"])
            .arg(format!("--lcores=0@{},1@{}", machine.other.id, machine.measured.id))
            .arg("--main-lcore=0");
        command.args(["--no-pci", "--no-telemetry"]).arg(format!("--file-prefix=vipa-testpmd-{}", std::process::id()));
        command.arg(format!("-m{MEMORY_MB}"));
        let shares_memory = devices.iter().any(|device| device.starts_with("net_memif"));
        command.args(shares_memory.then_some("--single-file-segments"));
        command.args(match (machine.hugepages, shares_memory) {
            (false, _) => Some("--no-huge"),
            (true, false) => Some("--huge-unlink=always"),
            (true, true) => None,
        });
        command.args(devices.iter().map(|device| format!("--vdev={device}")));
        command.args(["--", "-i", "--forward-mode=macswap", "--nb-cores=1", "--no-lsc-interrupt"]);
        command.arg(format!("--total-num-mbufs={BUFFERS}"));
        command.args([format!("--rxd={DESCRIPTORS}"), format!("--txd={DESCRIPTORS}")]);
        if devices.len() == 1 {
            command.arg("--port-topology=loop");
        }
        let leaves = u16::try_from(devices.len())? - 1;
        let mut testpmd = Self::start(command, Kind::Testpmd(leaves), &machine.scratch)?;
        let started = testpmd.say("start").and_then(|()| testpmd.sent());
        started.context("dpdk-testpmd does not run; `make bench` installs it (Debian's package dpdk-dev)")?;
        Ok(testpmd)
    }

    fn start(mut command: Command, kind: Kind, scratch: &Path) -> anyhow::Result<Self> {
        let log = scratch.join(if kind == Kind::Ours { "ours.log" } else { "testpmd.log" });
        // A group of its own: should this process die, the kernel wakes and ends what it had stopped.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?).process_group(0);
        let mut process = command.spawn()?;
        let (input, output) = process.stdin.take().zip(process.stdout.take()).context("a process without pipes")?;
        Ok(Self { process, input: Some(input), output: BufReader::new(output), kind, log })
    }

    pub(crate) fn say(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }

    /// Reads on to the first such line.
    pub(crate) fn read_until(&mut self, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("a measured process ended early: {}", log.trim());
            }
            if wanted(line.trim()) {
                return Ok(line.trim().to_owned());
            }
        }
    }

    /// Packets so far.
    fn sent(&mut self) -> anyhow::Result<u64> {
        match self.kind {
            Kind::Ours => {
                self.say("sent")?;
                Ok(self.read_until(|_| true)?.parse()?)
            }
            Kind::Testpmd(port) => {
                self.say(&format!("show port stats {port}"))?;
                let line = self.read_until(|line| line.starts_with("TX-packets:"))?;
                Ok(line.split_whitespace().nth(1).context("a number of packets")?.parse()?)
            }
        }
    }

    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.process.id())?), signal)?)
    }

    /// Million packets a second, over a moment.
    fn rate(&mut self) -> anyhow::Result<f64> {
        self.resume()?;
        thread::sleep(WARM_UP);
        let (before, begun) = (self.sent()?, Instant::now());
        thread::sleep(MOMENT);
        let (after, time) = (self.sent()?, begun.elapsed());
        self.pause()?;
        Ok((after - before) as f64 / time.as_secs_f64() / 1e6)
    }

    /// Everything a process of ours prints until it ends.
    pub(crate) fn numbers(mut self) -> anyhow::Result<Vec<f64>> {
        let mut numbers = Vec::new();
        self.input.take();
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            numbers.push(line.trim().parse()?);
            line.clear();
        }
        let status = self.process.wait()?;
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        anyhow::ensure!(status.success(), "a measured process failed: {}", log().trim());
        Ok(numbers)
    }

    /// One that measures by itself: what it prints.
    pub(crate) fn report(machine: &Machine, job: &Job) -> anyhow::Result<Vec<f64>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--subject").arg(serde_json::to_string(job)?);
        Self::start(command, Kind::Ours, &machine.scratch)?.numbers()
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // In good order if it still can, so that DPDK removes its files; whatever fails here, the last step does not.
        let _ = self.resume();
        if self.kind != Kind::Ours {
            let _ = self.say("quit");
        }
        self.input.take();
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The rates of each contender, round by round, in million packets a second.
pub(crate) fn duel(contenders: &mut [Contender], rounds: usize) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut rates = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for (contender, rates) in contenders.iter_mut().zip(&mut rates) {
            rates.push(contender.rate()?);
        }
    }
    Ok(rates)
}
