//! Long runs with connections that come and go; see `vipa_lab::endurance`.
//!
//! `T` (seconds) or `RELOADS`, and `FRESH` (connections a second), are environment variables. The last line is made for
//! scripts. The exit status is not zero when a connection broke or a process has grown.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use vipa_lab::endurance::{Story, append_row, run};

fn main() -> ExitCode {
    let end = story().and_then(run).and_then(|endured| {
        println!("{endured}");
        append_row(&endured.story, &endured)?;
        endured.check()
    });
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("endurance: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn story() -> Result<Story> {
    let number = |name: &str, default: u32| match std::env::var(name).as_deref() {
        Ok("") | Err(_) => Ok(default),
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}, but must be a number")),
    };
    let fresh_per_second = number("FRESH", 1_000)?;
    match std::env::args().nth(1).as_deref() {
        Some("soak") => Ok(Story::Soak { time: Duration::from_secs(number("T", 3_600)?.into()), fresh_per_second }),
        Some("reloads") => Ok(Story::Reloads { count: number("RELOADS", 10_000)?, fresh_per_second }),
        other => bail!("vipa-endurance takes \"soak\" or \"reloads\", not {other:?}"),
    }
}
