//! `vipad`, the router daemon: opens the ports, pins a worker to each core, runs control, and waits.

mod fit;
mod ports;
mod start;
mod tun;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    prelude::*,
};
use vipa_doctor::{DiagnosisLevel, Root};
use vipa_model::{
    config::{Config, Program},
    with_causes,
};

/// Routes packets for virtual IP addresses (VIPAs) and takes them over without breaking a connection.
#[derive(Debug, Parser)]
#[command(
    name = "vipad",
    version,
    after_help = "\
Examples:
  vipad --check r1.toml        say every mistake in the configuration, with line and column
  vipad --check r1.toml --here and whether this machine can do it: one line a check, with the command that mends what is wrong
  vipad --config r1.toml       run the router in the foreground
  vipactl --socket /run/vipad/r1/admin.sock status

SIGTERM and SIGINT stop it in good order: every VIPA it owns goes to a backup first. Started again it takes them back.
SIGHUP reads the configuration again: all of it is taken up or nothing, and the log says what (`vipactl reload` shows it).
The unit vipad.service runs it as a service, without root's rights.
The log goes to standard error; RUST_LOG sets its level, for example RUST_LOG=debug or RUST_LOG=info,vipa_control=debug."
)]
struct Arguments {
    /// Run with this configuration
    #[arg(long, value_name = "FILE", required_unless_present = "check")]
    config: Option<PathBuf>,
    /// Record every event from the first on, as `vipactl record start` does while it runs
    #[arg(long, requires = "config")]
    record: bool,
    /// Check this configuration and exit
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// Write the manual page into this folder and exit: for packages
    #[arg(long, value_name = "DIR", hide = true, exclusive = true)]
    generate_man: Option<PathBuf>,
    /// And check whether this machine can do what it asks: drivers, cores, memory, certificates, peers and more
    #[arg(long, requires = "check")]
    here: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(folder) = &arguments.generate_man {
        return generate_man(folder);
    }
    let result = match (&arguments.check, &arguments.config) {
        (Some(file), _) => check(file, arguments.here),
        (None, Some(file)) => read(file).and_then(|config| {
            log_to_stderr()?;
            start::run(config, file.clone(), arguments.record)
        }),
        (None, None) => unreachable!("clap requires one of the two"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipad: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Of section 8; `make deb` packs it.
fn generate_man(folder: &std::path::Path) -> ExitCode {
    match clap_mangen::Man::new(Arguments::command()).section("8").generate_to(folder) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipad: cannot write the manual page into {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn check(file: &std::path::Path, here: bool) -> anyhow::Result<()> {
    let config = read(file)?;
    println!(
        "{}: valid; router {}, {} port(s), {} VIPA(s)",
        file.display(),
        config.node.name,
        config.ports.len(),
        config.vipas.len()
    );
    if here {
        let findings = vipa_doctor::examine(&config, &Root::default());
        findings.iter().for_each(|finding| println!("{finding}"));
        anyhow::ensure!(
            vipa_doctor::worst(&findings) < DiagnosisLevel::Harm,
            "with what is marked HARM above, this router does not work well"
        );
    }
    Ok(())
}

fn read(file: &std::path::Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| anyhow::anyhow!("cannot read the configuration {}: {error}", file.display()))?;
    Ok(Config::parse_fitting(Program::Router, &file.display().to_string(), &text, fit::misfits)?)
}

fn log_to_stderr() -> anyhow::Result<()> {
    let wanted = std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.is_empty());
    let levels = wanted.as_deref().unwrap_or("info").parse::<Targets>();
    let levels = levels.map_err(|error| anyhow::anyhow!("RUST_LOG is not a list of levels: {error}"))?;
    let to_stderr = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    // A file or a journal shows colours as what they are written with.
    let to_stderr = to_stderr.with_ansi(std::io::stderr().is_terminal());
    to_stderr.finish().with(levels).init();
    Ok(())
}
