//! A worker's panic ends `vipad` in good order. No order of the product makes a worker panic, so a debugger does: it
//! stops the worker at the beginning of its housekeeping, and continues in `core::panicking::panic` as if that had been
//! called there. The unwinding, and the reaction of the rest of the process, are those of the program as it is shipped.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{PATIENCE, Plan},
    process::wait,
    programs,
};
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, everyone_answered};

const WORD: &str = "made by a debugger";

/// Addresses of a running `vipad`.
struct Image {
    /// Where its file is mapped.
    base: u64,
    symbols: String,
    /// As `readelf` lists them.
    segments: String,
}

impl Image {
    fn of(process: u32) -> Result<Self> {
        let vipad = programs::path("vipad")?;
        let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
        let first = maps.lines().find(|line| line.ends_with("/vipad")).context("vipad is not mapped")?;
        let base = u64::from_str_radix(first.split('-').next().unwrap_or_default(), 16)?;
        let listed = |program: &str, options: &str| -> Result<String> {
            let output = Command::new(program).arg(options).arg(&vipad).output();
            let output = output.with_context(|| format!("{program}, of binutils"))?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        Ok(Self { base, symbols: listed("nm", "--demangle")?, segments: listed("readelf", "-lW")? })
    }

    /// Where the process's variables end.
    fn end(&self) -> Result<u64> {
        let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        // LOAD, offset, virtual address, physical address, size in the file, size in memory, flags.
        let ends = self.segments.lines().filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            match columns[..] {
                ["LOAD", _, address, _, _, size, "RW", ..] => Some(hex(address)? + hex(size)?),
                _ => None,
            }
        });
        Ok(self.base + ends.max().context("vipad has no variables")?)
    }

    fn address(&self, symbol: &str) -> Result<u64> {
        let is_it = |line: &&str| line.split_once(' ').is_some_and(|(_, rest)| rest.get(2..) == Some(symbol));
        let line = self.symbols.lines().find(is_it).with_context(|| format!("vipad has no {symbol}"))?;
        Ok(self.base + u64::from_str_radix(line.split(' ').next().unwrap_or_default(), 16)?)
    }
}

/// Makes a worker of this process panic.
fn panic_in_a_worker(process: u32) -> Result<()> {
    let image = Image::of(process)?;
    let (housekeep, panic) =
        (image.address("vipa_dataplane::worker::Worker<R,T>::housekeep")?, image.address("core::panicking::panic")?);
    // The rest of the page behind the process's variables is unused.
    let location = image.end()?.next_multiple_of(8);
    let (file, word) = (location + 24, location + 32);
    ensure!(location % 4096 < 4096 - 64, "no room behind the variables");
    let mut orders =
        vec!["set language c".into(), format!("break *{housekeep:#x}"), "continue".into(), "delete".into()];
    // A `core::panic::Location`: the file name's address, its length with its zero, line and column.
    orders.extend([format!("set {{long}}{location:#x} = {file:#x}"), format!("set {{long}}{:#x} = 4", location + 8)]);
    orders.push(format!("set {{long}}{:#x} = 0x100000001", location + 16));
    let bytes = |at: u64, text: &str| -> Vec<String> {
        (at..).zip(text.bytes()).map(|(at, byte)| format!("set {{char}}{at:#x} = {byte}")).collect()
    };
    orders.extend([bytes(file, "gdb\0"), bytes(word, WORD)].concat());
    // The first two arguments are the message, the third is the location that the compiler adds.
    orders.extend([format!("set $rdi = {word:#x}"), format!("set $rsi = {}", WORD.len())]);
    orders.extend([format!("set $rdx = {location:#x}"), format!("set $pc = {panic:#x}"), "detach".into()]);
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-readnever", "-iex", "set auto-solib-add off", "-p", &process.to_string()]);
    for order in &orders {
        gdb.args(["-ex", order]);
    }
    let said = gdb.output().context("gdb")?;
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(
        said.status.success() && text.contains("Breakpoint 1, "),
        "{text}{}",
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(())
}

#[test]
#[ignore = "needs gdb: make test-worker-panic"]
fn a_router_whose_worker_panics_hands_over_says_so_and_ends_and_no_connection_breaks() {
    // While the debugger examines the process no beat is sent; the test is about what follows.
    Plan { lease_ms: 10_000, ..Plan::new("worker_panic") }.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let process = cluster.router("r1").process_id()?;
        panic_in_a_worker(process)?;
        cluster.router("r1").wait_failure(PATIENCE)?;
        let end = fs::read_to_string(cluster.lab().logs().join("r1.log"))?;
        ensure!(end.contains(WORD), "the panic's message is in the log: {end}");
        ensure!(end.contains("a worker panicked: vipad stops"), "{end}");
        ensure!(end.contains("worker 0 panicked"), "the reason is the last that it says: {end}");
        wait("r2 to own the VIPA", PATIENCE, || cluster.router("r2").view().ok()?.owns.then_some(()))?;
        let takeover = cluster.wait_takeover("r2", Trigger::Handover)?;
        println!("handed over: {:?}", takeover.report.trigger);
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}
