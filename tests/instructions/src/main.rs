//! How many instructions the packet path takes, which no other load on the machine changes: `make instructions`.
//!
//! ```text
//!  vipa-instructions ──► valgrind --tool=callgrind vipa-instructions --measured CASE ──► a count of each
//!                                                                                        │
//!  bounds ──────────────────────────── not more than five per cent above? ◄───────────────┘
//! ```
//! Counts hang on the compiler, so `bounds` names the one it was written with. After a change that is worth its instructions,
//! or that saves some: `make instructions WRITE=1`.

#![forbid(unsafe_code)]

mod cases;

use std::{collections::BTreeMap, fmt::Write, fs, process::Command};

use anyhow::{Context, ensure};

use cases::CASES;

/// A case is done so often in one count.
const TIMES: u64 = 1000;
/// Per cent.
const TOLERATED: u64 = 5;
const BOUNDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bounds");

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("--measured") => {
            let name = arguments.next().context("which case?")?;
            let case = CASES.iter().find(|case| case.name == name).context("there is no such case")?;
            (case.prepare)().run();
            Ok(())
        }
        Some("--write") => Ok(fs::write(BOUNDS, write(&compiler()?, &count()?))?),
        _ => judge(&count()?),
    }
}

/// What callgrind counts of each case.
fn count() -> anyhow::Result<BTreeMap<&'static str, u64>> {
    CASES.iter().map(|case| Ok((case.name, count_one(case.name).with_context(|| case.name)?))).collect()
}

/// In a process of its own; callgrind says in its last lines what it has counted within `measured`.
fn count_one(name: &str) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*measured*"])
        .arg("--callgrind-out-file=/dev/null")
        .arg(std::env::current_exe()?)
        .args(["--measured", name])
        .output()
        .context("valgrind does not start; `make deps` installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let collected =
        said.lines().find_map(|line| line.split_once("Collected : ")).context("callgrind says no number")?.1;
    let total: u64 = collected.trim().parse()?;
    ensure!(total > 0, "nothing was counted");
    Ok(total / TIMES)
}

fn judge(counts: &BTreeMap<&'static str, u64>) -> anyhow::Result<()> {
    let text = fs::read_to_string(BOUNDS)?;
    let mut lines = text.lines();
    let theirs = lines.next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
    let written: BTreeMap<&str, u64> = lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, n)| Ok((name, n.parse()?)))
        .collect::<anyhow::Result<_>>()?;
    let mut above = Vec::new();
    for (&name, &count) in counts {
        let bound = *written.get(name).with_context(|| format!("{name} has no bound; `make instructions WRITE=1`"))?;
        println!("{name:<28} {count:>6}   bound {bound:>6}");
        // Of a small number, one per cent is less than an instruction.
        if count * 100 > bound * (100 + TOLERATED) + 50 {
            above.push(format!("{name}: {count} instructions, {bound} before"));
        }
    }
    let ours = compiler()?;
    let other = if ours == theirs { String::new() } else { format!(" (by {ours}; the bounds are of {theirs})") };
    ensure!(above.is_empty(), "more than {TOLERATED} % above{other}:\n{}", above.join("\n"));
    println!("test result: ok. {} passed; 0 failed", counts.len());
    Ok(())
}

fn write(compiler: &str, counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().fold(format!("# {compiler}\n"), |mut text, (name, count)| {
        let _ = writeln!(text, "{name}\t{count}");
        text
    })
}

fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc does not start")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
