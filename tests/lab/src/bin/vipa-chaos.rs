//! Random faults under checked connections; see `vipa_lab::chaos`.
//!
//! `T` (seconds), `SEED`, `CONNECTIONS` and `REQUESTERS` (clients of one request a connection, of each ending) and
//! `OBSERVE` (`bpf` or `diag`) are environment variables. The last line is made for scripts. The exit status is not
//! zero when a connection broke that no killed server held.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use vipa_lab::{
    chaos::{Settings, run},
    load::clock,
};

fn main() -> ExitCode {
    let end = settings().and_then(run).and_then(|outcome| {
        println!("{outcome}");
        outcome.check().with_context(|| again(&outcome.settings))
    });
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn settings() -> Result<Settings> {
    let number = |name: &str, default: u64| match std::env::var(name).as_deref() {
        Ok("") | Err(_) => Ok(default),
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}, but must be a number")),
    };
    Ok(Settings {
        // Any seed is as good as another.
        seed: number("SEED", clock() % 1_000_000)?,
        time: Duration::from_secs(number("T", 60)?),
        connections: usize::try_from(number("CONNECTIONS", 2_000)?)?,
        requesters: u16::try_from(number("REQUESTERS", 5)?)?,
        observe: std::env::var("OBSERVE").ok().filter(|observe| !observe.is_empty()).unwrap_or_else(|| "auto".into()),
    })
}

fn again(settings: &Settings) -> String {
    let Settings { seed, time, connections, requesters, observe } = settings;
    format!(
        "the same faults again: make chaos SEED={seed} T={} CONNECTIONS={connections} REQUESTERS={requesters} \
         OBSERVE={observe}",
        time.as_secs()
    )
}
