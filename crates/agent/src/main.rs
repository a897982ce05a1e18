//! `vipa-agent`, the half of Vipa that runs beside the server: it tells the routers which connections this host
//! holds, which ports are listened on, and votes if it is a voter.

#![deny(unsafe_code)]

mod address;
mod agent;
mod bpf;
mod checks;
mod decap;
mod drain;
mod host;
mod inheritance;
mod kernel;
mod link_address;
mod load;
mod metrics;
mod misplaced;
mod netlink;
mod orders;
mod privileges;
mod setup;
mod state_file;
mod status;
mod voting;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    prelude::*,
};
use vipa_doctor::{DiagnosisLevel, Root};
use vipa_model::{
    config::{Agent, Config, Program},
    with_causes,
};

use crate::{orders::Wish, privileges::Elsewhere, status::Form};

/// Tells Vipa's routers which connections this host holds, so that no failover breaks one.
#[derive(Debug, Parser)]
#[command(
    name = "vipa-agent",
    version,
    after_help = "\
Examples:
  vipa-agent --check t1.toml       say every mistake in the configuration, with line and column
  vipa-agent --check t1.toml --here and whether this machine can do it, with the command that mends what is wrong
  vipa-agent --print-setup t1.toml say what it would change on this host
  vipa-agent --config t1.toml      run in the foreground, beside the server
  vipa-agent drain --config t1.toml --timeout 60
                                   have the running agent ask for no new connections, wait until those it has
                                   are over, 60 s at most, and leave
  vipa-agent drain --config t1.toml --cancel
                                   have it serve again
  vipa-agent status --config t1.toml
                                   say how the running agent is
  vipa-agent cleanup --config t1.toml
                                   undo what a stopped agent has left on this host

It puts the VIPAs that the routers name on the configured interface, usually lo, and has their tunnels unwrapped. SIGTERM and
SIGINT end it and leave both for the connections that use them, so that a restart or an upgrade costs nothing. With its last
connection drained, or when `cleanup` says so, everything is undone. With `drain_timeout_s`, SIGTERM drains first and a second
one does not. It listens on no port but that of [metrics]. It needs CAP_NET_ADMIN and CAP_BPF, and gives up whatever else it is started with: run
it as root, or as the unit vipa-agent.service does.
The log goes to standard error; RUST_LOG sets its level, for example RUST_LOG=debug or RUST_LOG=info,vipa_agent=debug."
)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    order: Option<Order>,
    /// Run with this configuration
    #[arg(long, value_name = "FILE", required_unless_present_any = ["check", "print_setup"])]
    config: Option<PathBuf>,
    /// Check this configuration and exit
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check: Option<PathBuf>,
    /// And check whether this machine can do what it asks: certificates, addresses, the state directory, routers
    #[arg(long, requires = "check")]
    here: bool,
    /// Say what would be changed on this host, and exit
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "check"])]
    print_setup: Option<PathBuf>,
    /// Write the manual page into this folder and exit: for packages
    #[arg(long, value_name = "DIR", hide = true, exclusive = true)]
    generate_man: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Take this host out of service: no new connections, those it has run out, then the agent leaves
    ///
    /// Prints how many connections are left. Ends with success when none were, and with failure when time was over
    /// before. Datagrams of UDP services go elsewhere at once: they have no connections to wait for.
    Drain {
        /// The running agent's configuration: it names the socket to ask
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Leave after this many seconds, whatever is left; without it, as long as it takes
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
        /// Serve again
        #[arg(long, conflicts_with = "timeout")]
        cancel: bool,
    },
    /// Undo what an agent that is stopped has left on this host: VIPAs, ARP settings, what unwraps tunnels
    ///
    /// Stopping an agent leaves them for the connections that use them and for the next agent. Clean up where there will be
    /// none: connections to the VIPAs that are left end with this. Prints what was undone. Needs CAP_NET_ADMIN and CAP_BPF.
    Cleanup {
        /// The configuration of the agent that was stopped: it names the state folder
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say how the running agent is: links, connections, logs, health, tunnels, and what it has changed on this host
    Status {
        /// The running agent's configuration: it names the socket to ask
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(folder) = &arguments.generate_man {
        return generate_man(folder);
    }
    let result = match &arguments {
        Arguments { order: Some(Order::Drain { config, timeout, cancel }), .. } => {
            let wish = if *cancel { Wish::Cancel } else { Wish::Drain { timeout_s: *timeout } };
            ask_to_drain(config, wish)
        }
        Arguments { order: Some(Order::Status { config, json }), .. } => {
            ask_for_status(config, if *json { Form::Json } else { Form::Text }).map(|()| true)
        }
        Arguments { order: Some(Order::Cleanup { config }), .. } => clean_up(config).map(|()| true),
        Arguments { check: Some(file), here, .. } => check(file, *here),
        Arguments { print_setup: Some(file), .. } => print_setup(file).map(|()| true),
        Arguments { config: Some(file), .. } => run(file).map(|()| true),
        Arguments { config: None, .. } => unreachable!("clap requires one of them"),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vipa-agent: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Of section 8, one for each subcommand too; `make deb` packs them.
fn generate_man(folder: &Path) -> ExitCode {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let all = std::iter::once(command.clone()).chain(command.get_subcommands().cloned());
    let written = all.map(|page| clap_mangen::Man::new(page).section("8").generate_to(folder));
    match written.collect::<Result<Vec<_>, _>>() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipa-agent: cannot write the manual pages into {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path, here: bool) -> anyhow::Result<bool> {
    let (config, agent) = read(file)?;
    println!("{}: valid; target {} at {}", file.display(), config.node.name, agent.address);
    let findings = if here { vipa_doctor::examine(&config, &Root::default()) } else { Vec::new() };
    findings.iter().for_each(|finding| println!("{finding}"));
    Ok(vipa_doctor::worst(&findings) < DiagnosisLevel::Harm)
}

fn print_setup(file: &Path) -> anyhow::Result<()> {
    let (config, agent) = read(file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(setup::print(&config, &agent))
}

fn clean_up(file: &Path) -> anyhow::Result<()> {
    let (config, agent) = read(file)?;
    log_to_stderr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(setup::clean_up(&config, &agent))
}

fn ask_to_drain(file: &Path, wish: Wish) -> anyhow::Result<bool> {
    let (config, _) = read(file)?;
    drain::ask(&config.node.admin, wish)
}

fn ask_for_status(file: &Path, form: Form) -> anyhow::Result<()> {
    let (config, _) = read(file)?;
    status::ask(&config.node.admin, form)
}

fn run(file: &Path) -> anyhow::Result<()> {
    let (config, agent) = read(file)?;
    log_to_stderr()?;
    let elsewhere = if agent.namespaces.is_empty() { Elsewhere::No } else { Elsewhere::Yes };
    privileges::drop_the_rest(elsewhere)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::run(file, &config, &agent))
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

fn read(file: &Path) -> anyhow::Result<(Config, Agent)> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| anyhow::anyhow!("cannot read the configuration {}: {error}", file.display()))?;
    let config = Config::parse_for(Program::Agent, &file.display().to_string(), &text)?;
    let agent = config.agent.clone().ok_or_else(|| anyhow::anyhow!("{}: [agent] is missing", file.display()))?;
    Ok((config, agent))
}
