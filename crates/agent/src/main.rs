//! `vipa-agent`, the half of Vipa that runs beside the server: it tells the routers which connections this host
//! holds, which ports are listened on, and votes if it is a voter.

#![deny(unsafe_code)]

mod address;
mod agent;
mod bpf;
mod decap;
mod kept;
mod kernel;
mod load;
mod setup;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use vipa_model::config::{Agent, Config, Program};

/// Tells Vipa's routers which connections this host holds, so that no failover breaks one.
#[derive(Debug, Parser)]
#[command(
    name = "vipa-agent",
    version,
    after_help = "\
Examples:
  vipa-agent --check t1.toml       say every mistake in the configuration, with line and column
  vipa-agent --print-setup t1.toml say what it would change on this host
  vipa-agent --config t1.toml      run in the foreground, beside the server

It puts the VIPAs that the routers name on the configured interface, usually lo, and takes them away again when it
is stopped with SIGTERM or SIGINT. It opens no listening port. It needs CAP_NET_ADMIN: run it as root.
The log goes to standard error; RUST_LOG sets its level, for example RUST_LOG=debug."
)]
struct Arguments {
    /// Run with this configuration
    #[arg(long, value_name = "FILE", required_unless_present_any = ["check", "print_setup"])]
    config: Option<PathBuf>,
    /// Check this configuration and exit
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// Say what would be changed on this host, and exit
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "check"])]
    print_setup: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments {
        Arguments { check: Some(file), .. } => check(file),
        Arguments { print_setup: Some(file), .. } => print_setup(file),
        Arguments { config: Some(file), .. } => run(file),
        Arguments { config: None, .. } => unreachable!("clap requires one of them"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipa-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> anyhow::Result<()> {
    let (config, agent) = read(file)?;
    println!("{}: valid; target {} at {}", file.display(), config.node.name, agent.address);
    Ok(())
}

fn print_setup(file: &Path) -> anyhow::Result<()> {
    let (config, agent) = read(file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(setup::print(&config, &agent))
}

fn run(file: &Path) -> anyhow::Result<()> {
    let (config, agent) = read(file)?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run(&config, &agent))
}

fn read(file: &Path) -> anyhow::Result<(Config, Agent)> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| anyhow::anyhow!("cannot read the configuration {}: {error}", file.display()))?;
    let config = Config::parse_for(Program::Agent, &file.display().to_string(), &text)?;
    let agent = config.agent.clone().ok_or_else(|| anyhow::anyhow!("{}: [agent] is missing", file.display()))?;
    Ok((config, agent))
}
