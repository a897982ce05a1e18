//! The machine that is measured on, and what is prepared there.

use std::{fs, path::Path, path::PathBuf, thread};

use anyhow::Context;
use core_affinity::CoreId;
use vipa_dpdk::EalMemory;

/// Hugepages asked for while measuring: enough for all contenders and for the largest connection table.
const HUGEPAGES: u64 = 1280;
const HUGEPAGES_FILE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// The contenders' share of them.
const CONTENDERS_MB: u64 = 1024;

/// What a figure may use of the machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// As results name it.
    pub(crate) name: String,
    /// The core that is measured: the last one, which the kernel uses least.
    pub(crate) measured: CoreId,
    /// For who must not disturb it, or measures beside it; the same where there is only one.
    pub(crate) other: CoreId,
    /// Whether DPDK's memory is of hugepages: in all contenders or in none.
    pub(crate) hugepages: bool,
    /// For captures and logs.
    pub(crate) scratch: PathBuf,
    _reserved: Reserved,
}

impl Machine {
    pub(crate) fn prepare(results: &Path) -> anyhow::Result<Self> {
        let cores = core_affinity::get_core_ids().context("the machine's cores are not to be seen")?;
        let (first, last) = cores.first().zip(cores.last()).context("a machine without cores")?;
        let scratch = std::path::absolute(results)?.join("scratch");
        fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        let reserved = Reserved::ask();
        let hugepages = EalMemory::hugepages_free_mb() >= CONTENDERS_MB && is_mounted();
        Ok(Self {
            name: describe(cores.len()),
            measured: *last,
            other: *first,
            hugepages,
            scratch,
            _reserved: reserved,
        })
    }
}

/// Hugepages set aside while we measure, where we may.
#[derive(Debug)]
struct Reserved {
    before: Option<String>,
}

impl Reserved {
    fn ask() -> Self {
        let before = fs::read_to_string(HUGEPAGES_FILE).ok();
        let wanted = before.as_ref().and_then(|before| before.trim().parse::<u64>().ok()).unwrap_or(0).max(HUGEPAGES);
        // Without the right to, or on a full machine, we measure with what there is, and say so.
        let asked = fs::write(HUGEPAGES_FILE, wanted.to_string());
        Self { before: before.filter(|_| asked.is_ok()) }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(HUGEPAGES_FILE, before);
        }
    }
}

fn is_mounted() -> bool {
    fs::read_to_string("/proc/mounts").unwrap_or_default().lines().any(|line| line.contains(" hugetlbfs "))
}

fn describe(cores: usize) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        line.map_or("unknown", str::trim).to_owned()
    };
    let cpu = read("/proc/cpuinfo");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let gib = memory.split(' ').next().and_then(|kib| kib.parse::<f64>().ok()).map_or(0.0, |kib| kib / 1024.0 / 1024.0);
    let guest = if cpu.contains(" hypervisor") { ", a virtual machine" } else { "" };
    format!(
        "{}, {cores} cores, {gib:.0} GiB, Linux {}, {}{guest}",
        field(&cpu, "model name"),
        read("/proc/sys/kernel/osrelease").trim(),
        vipa_dpdk::version(),
    )
}

/// Runs `work` on a thread of its own that stays on `core`.
///
/// # Panics
/// When `work` does.
pub(crate) fn on_core<T: Send>(core: CoreId, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            if !core_affinity::set_for_current(core) {
                eprintln!("core {} could not be kept: the figures will be worse", core.id);
            }
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
