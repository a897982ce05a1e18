//! `vipa-sim`: runs seeds, and prints the story of the first one that fails.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use vipa_sim::{
    Attacks, HostileRole, Summary,
    replay::{Detail, Replayed, replay},
    scale::{self, Bill, Size},
};

/// Simulates whole clusters under faults, each decided by its seed, and checks what must hold after every step.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Forge segments in half of the runs. One seed of a thousand fails: a forged SYN may move a connection of a target
    /// whose agent is away.
    #[arg(long, conflicts_with = "hostile")]
    attacked: bool,
    /// Add a peer with a certificate that sends messages of every kind, with numbers, names and addresses that do harm
    /// if they are accepted, until the faults end. Without ROLE each seed chooses the role.
    #[arg(long, value_name = "ROLE", num_args = 0..=1)]
    hostile: Option<Option<HostileRole>>,
    /// Print everything that happens.
    #[arg(long)]
    story: bool,
    /// With one seed: also print every change of the connections from this client port.
    #[arg(long, requires = "seed", value_name = "PORT")]
    follow: Option<u16>,
    /// Continue after a failure.
    #[arg(long)]
    all: bool,
    /// Instead, run one cluster without packets of this many routers, targets and VIPAs, and print what it costs.
    #[arg(long, num_args = 3, value_names = ["ROUTERS", "TARGETS", "VIPAS"])]
    scale: Option<Vec<usize>>,
    /// Instead, replay what a router recorded (`vipactl record start`), and check that the results are the same.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

/// Lines of a failed run's story that are printed without a request.
const LAST_LINES: usize = 80;

fn main() -> ExitCode {
    let Arguments { seeds, from, seed, attacked, hostile, story, follow, all, scale, replay } = Arguments::parse();
    if let Some(&[routers, targets, vipas]) = scale.as_deref() {
        return grow(Size { routers, targets, vipas }, seed.unwrap_or(from));
    }
    if let Some(file) = replay {
        return go_through(&file, if story { Detail::Whole } else { Detail::InShort });
    }
    let range = seed.map_or(from..from + seeds, |seed| seed..seed + 1);
    let attacks = |seed: u64| match hostile {
        None if attacked => Attacks::Segments,
        None => Attacks::None,
        Some(Some(role)) => Attacks::Messages(role),
        Some(None) => Attacks::Messages(HostileRole::ALL[(seed % HostileRole::ALL.len() as u64) as usize]),
    };
    let (mut failed, mut sum) = (0_u64, Summary::default());
    let total = range.end - range.start;
    for seed in range {
        match vipa_sim::simulate_attacked(seed, attacks(seed), story) {
            Ok(summary) => sum += summary,
            Err(failure) => {
                failed += 1;
                if all && failed > 1 {
                    println!("seed {seed}: at {:.3} ms: {}", failure.at_ms, failure.what);
                } else {
                    tell(seed, attacks(seed), story, follow);
                }
                if !all {
                    println!("sim: seed {seed} failed");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    let Summary { steps, ownerships, connections, broken, voters_changed } = sum;
    println!(
        "sim: {} of {total} seeds hold: {steps} steps, {ownerships} ownerships, {voters_changed} changes of voters, \
         {connections} connections, {broken} broken where faults allow it",
        total - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a large cluster, and prints the messages and memory of its nodes.
fn grow(size: Size, seed: u64) -> ExitCode {
    let Bill { starting, router, target, death, orphaned, moved, writes, votes } = match scale::run(size, seed) {
        Ok(bill) => bill,
        Err(what) => {
            println!("scale: {size:?}: {what}");
            return ExitCode::FAILURE;
        }
    };
    let Size { routers, targets, vipas } = size;
    println!("scale: {routers} routers, {targets} targets, {vipas} VIPAs");
    println!("until everything was owned, all together: {starting}");
    println!("in a calm second, the router that says most: {router}");
    println!("in a calm second, the target that says most: {target}");
    println!("in the second after a router's death, all together: {death}");
    println!("its {moved} VIPAs were owned again after {} ms", orphaned.as_millis());
    println!("{votes} votes were written to disks in {writes} writes");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        println!("memory of all nodes at its most: {}", peak.trim());
    }
    ExitCode::SUCCESS
}

/// Replays a recording, and prints its story up to the first fault.
fn go_through(file: &Path, told: Detail) -> ExitCode {
    let shown = file.display();
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            println!("replay: cannot read {shown}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match replay(&bytes, told, &mut |line| println!("{line}")) {
        Ok(Replayed { events, outputs, broken_off }) => {
            if broken_off {
                println!("replay: what the last event led to was not recorded any more: the process ended within it");
            }
            println!("replay: {shown}: all {events} events led to what was recorded, {outputs} outputs");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("replay: {shown}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the seed again, with its story.
fn tell(seed: u64, attacks: Attacks, whole: bool, follow: Option<u16>) {
    let again = match follow {
        Some(port) => vipa_sim::simulate_followed(seed, attacks, port),
        None => vipa_sim::simulate_attacked(seed, attacks, true),
    };
    let Err(failure) = again else {
        println!("seed {seed} failed once and then not: something outside the seed decides");
        return;
    };
    let skip = if whole { 0 } else { failure.story.len().saturating_sub(LAST_LINES) };
    for line in failure.story.iter().take(1).chain(&failure.story[skip.max(1).min(failure.story.len())..]) {
        println!("{line}");
    }
    println!("\nseed {seed}: at {:.3} ms: {}", failure.at_ms, failure.what);
    let attacks = match attacks {
        Attacks::None => String::new(),
        Attacks::Segments => " --attacked".into(),
        Attacks::Messages(role) => {
            let name = role.to_possible_value().map(|value| value.get_name().to_owned());
            format!(" --hostile {}", name.unwrap_or_default())
        }
    };
    println!("again, with everything: cargo run --release -p vipa-sim -- --seed {seed} --story{attacks}\n");
}
