//! The machine that is measured on.

use std::{fs, thread};

use anyhow::Context;
use core_affinity::CoreId;

/// What a figure may use of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// As results name it.
    pub(crate) name: String,
    /// The core that is measured: the last one, which the kernel uses least.
    pub(crate) measured: CoreId,
    /// For who must not disturb it, or measures beside it; the same where there is only one.
    #[expect(dead_code, reason = "for figures of two cores")]
    pub(crate) other: CoreId,
}

impl Machine {
    pub(crate) fn look() -> anyhow::Result<Self> {
        let cores = core_affinity::get_core_ids().context("the machine's cores are not to be seen")?;
        let (first, last) = cores.first().zip(cores.last()).context("a machine without cores")?;
        Ok(Self { name: describe(cores.len()), measured: *last, other: *first })
    }
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
