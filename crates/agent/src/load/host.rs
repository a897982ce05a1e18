//! The host's own measurements, from /proc.

use std::{fs, io, time::Duration};

use vipa_protocol::HostLoad;

/// Reads the cumulative counters, and returns their changes since the last time.
#[derive(Debug, Default)]
pub(crate) struct HostGauge {
    before: Option<Totals>,
}

/// Cumulative counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    /// Clock ticks of all processors, and those of them that were idle or waiting for a disk.
    ticks: u64,
    idle_ticks: u64,
    /// Microseconds in which some process waited for a processor.
    stalled_us: u64,
}

impl HostGauge {
    /// `elapsed`: since the last call. Leaves the number of connections to the caller.
    pub(crate) fn read(&mut self, elapsed: Duration) -> io::Result<HostLoad> {
        let stat = fs::read_to_string("/proc/stat")?;
        // Absent where the kernel was built or started without PSI.
        let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
        let snmp = fs::read_to_string("/proc/self/net/snmp")?;
        let totals = Totals { stalled_us: stalled_us(&pressure), ..ticks(&stat) };
        let before = self.before.replace(totals).unwrap_or(totals);
        let ticks = totals.ticks.saturating_sub(before.ticks);
        let idle = totals.idle_ticks.saturating_sub(before.idle_ticks);
        let stalled = totals.stalled_us.saturating_sub(before.stalled_us);
        Ok(HostLoad {
            cpu_permille: permille(ticks.saturating_sub(idle), ticks),
            runnable_percent: runnable_percent(&stat),
            pressure_permille: permille(stalled, u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)),
            passive_opens: passive_opens(&snmp),
            connections: 0,
        })
    }
}

fn permille(part: u64, whole: u64) -> u16 {
    (part.saturating_mul(1000) / whole.max(1)).min(1000) as u16
}

/// `cpu  user nice system idle iowait irq softirq steal …`, the sum of all processors.
fn ticks(stat: &str) -> Totals {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    // Guests' time is part of user's already.
    let fields: Vec<u64> = line.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
    let idle = fields.iter().skip(3).take(2).sum();
    Totals { ticks: fields.iter().sum(), idle_ticks: idle, stalled_us: 0 }
}

/// `procs_running`, for each `cpuN`. The reading process runs, and does not count.
fn runnable_percent(stat: &str) -> u32 {
    let running = stat.lines().find_map(|line| line.strip_prefix("procs_running ")).and_then(|n| n.trim().parse().ok());
    let is_cpu =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let cpus = stat.lines().filter(is_cpu).count().max(1) as u32;
    let running: u32 = running.unwrap_or(0);
    running.saturating_sub(1).saturating_mul(100) / cpus
}

/// `some avg10=… avg60=… avg300=… total=N`
fn stalled_us(pressure: &str) -> u64 {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "));
    let total = some.and_then(|line| line.split_whitespace().find_map(|field| field.strip_prefix("total=")));
    total.and_then(|total| total.parse().ok()).unwrap_or_default()
}

/// `Tcp: name name …` and below it `Tcp: number number …`.
fn passive_opens(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
    let named = names.split_whitespace().zip(numbers.split_whitespace());
    let found = named.into_iter().find(|(name, _)| *name == "PassiveOpens");
    found.and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 0 50 800 40 0 10 0 5 0\ncpu0 50 0 25 400 20 0 5 0 0 0\n\
                        cpu1 50 0 25 400 20 0 5 0 0 0\nintr 1 2 3\nprocs_running 5\nprocs_blocked 0\n";

    #[test]
    fn the_kernels_figures_are_found_where_it_writes_them() {
        assert_eq!(ticks(STAT), Totals { ticks: 1000, idle_ticks: 840, stalled_us: 0 });
        assert_eq!(runnable_percent(STAT), 200, "four others on two processors");
        let pressure = "some avg10=1.50 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0.00 total=9\n";
        assert_eq!((stalled_us(pressure), stalled_us("")), (123_456, 0));
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 7 42\n";
        assert_eq!((passive_opens(snmp), passive_opens("")), (42, 0));
    }

    #[test]
    fn this_machine_can_be_read() {
        let mut gauge = HostGauge::default();
        gauge.read(Duration::ZERO).unwrap();
        let load = gauge.read(Duration::from_secs(1)).unwrap();
        assert!(load.cpu_permille <= 1000 && load.pressure_permille <= 1000, "{load:?}");
    }
}
