//! What we owe in speed, measured: `make bench`, `make bench ONLY=P1,P4`.
//!
//! ```text
//! figures ──► cases ──► results/latest.json ──► pictures (SVG)
//! (one module each)       what was owed, what was measured, whether that is met
//! ```
//! A figure is a module under [`figures`]: how one of the speeds in PERFORMANCE.md or README.md is measured. It returns
//! [`Case`](figure::Case)s, and nothing else of it is known here.

#![forbid(unsafe_code)]

mod contender;
mod figure;
mod figures;
mod machine;
mod picture;
mod ports;
mod results;
mod subject;
mod world;

use std::{path::PathBuf, process::ExitCode};

use anyhow::ensure;
use clap::Parser;

use crate::{figure::Figure, machine::Machine, results::Results};

/// Measures what Vipa owes in speed, and says what is met.
#[derive(Debug, Parser)]
#[command(name = "vipa-perf")]
struct Arguments {
    /// Only these figures: P1,P4; the others keep what was measured last
    #[arg(long, value_delimiter = ',', value_name = "ID")]
    only: Vec<String>,
    /// List the figures, measure nothing
    #[arg(long)]
    list: bool,
    /// Where latest.json and the pictures are
    #[arg(long, default_value = "perf/results", value_name = "FOLDER")]
    results: PathBuf,
    /// Be a process that is measured, as the parent process says
    #[arg(long, hide = true)]
    subject: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipa-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(job) = &arguments.subject {
        return subject::run(&serde_json::from_str(job)?);
    }
    if arguments.list {
        figures::ALL.iter().for_each(|figure| println!("{:<4} {}", figure.id, figure.what));
        return Ok(());
    }
    let chosen = choose(&arguments.only)?;
    let machine = Machine::prepare(&arguments.results)?;
    let mut results = Results::open(&arguments.results, &machine)?;
    println!("{}", results.heading());
    println!("{}", results::TITLE);
    let mut failed = Vec::new();
    for figure in chosen {
        match (figure.measure)(&machine) {
            Ok(cases) => {
                for row in results.replace(figure.id, cases) {
                    println!("{row}");
                }
                results.write()?;
            }
            Err(error) => {
                println!("{:<4} could not be measured: {error:#}", figure.id);
                failed.push(figure.id);
            }
        }
    }
    picture::draw(&results)?;
    println!("\n{}", results.summary());
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

fn choose(only: &[String]) -> anyhow::Result<Vec<&'static Figure>> {
    for id in only {
        let known = figures::ALL.iter().any(|figure| figure.id.eq_ignore_ascii_case(id));
        ensure!(known, "there is no figure {id}; `vipa-perf --list` says which there are");
    }
    let wanted = |figure: &&Figure| only.is_empty() || only.iter().any(|id| figure.id.eq_ignore_ascii_case(id));
    Ok(figures::ALL.iter().filter(wanted).collect())
}
