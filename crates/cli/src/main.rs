//! `vipactl`: makes a cluster's certificates, asks a router what it is doing, and gives it orders.

#![forbid(unsafe_code)]

mod ask;
mod completion;
mod events;
mod manual;
mod order;
mod show;
mod status;
mod table;

use std::{
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use vipa_model::{NodeName, with_causes};
use vipa_protocol::admin::{self, AuditMode, DEFAULT_LIMIT, DEFAULT_RECORDING_MB, ReloadMode, Request};
use vipa_transport::{CertifiedRoles, pki};

/// Makes the certificates of a Vipa cluster, asks its routers what they are doing, and gives them orders.
///
/// A router (`vipad`) owns virtual IP addresses and forwards each connection to one target; when it dies a backup takes
/// over and no connection breaks. Questions and orders go to a router on this machine, over its admin socket. An order is
/// waited for; what it decides outlives takeovers and restarts.
#[derive(Debug, Parser)]
#[command(
    name = "vipactl",
    version,
    after_help = "\
Examples:
  vipactl pki init --dir pki            make the cluster's authority: pki/ca.pem and pki/ca.key
  vipactl pki issue r1 --router --dir pki               make a router's certificate: pki/r1.pem and pki/r1.key
  vipactl pki issue t1 --target 10.0.0.31 --dir pki     make a target's, for the address that it serves at
  vipactl status                        who owns what, who is linked, which targets are known
  vipactl health                        is all well? For people, monitoring and HEALTHCHECK
  vipactl events -f --since 10m         what has happened in the last ten minutes, and what happens
  vipactl connections --limit 100       which connection is at which target
  vipactl reload --dry-run              what would change if the configuration were read again
  vipactl drill 192.0.2.100             on a backup: what would come of a takeover now
  vipactl audit --repair                does the table know what the targets hold? Make it so
  vipactl takeovers --json              for scripts: the same as one JSON document
  vipactl vipa move 192.0.2.10 r2       r2 takes the VIPA over, and not a packet is lost
  vipactl target quiesce 10.0.0.31      no new connections to this target; those it has run out
  vipactl node leave                    this router gives up all it owns, say for maintenance; `join` ends that
  vipactl record start                  write down every event, to be replayed where there is time to look

Exit status: 0 done, 1 refused, 2 wrong usage, 4 no answer, 5 an answer to look at: `diff` or `audit` differ, `drill` would lose
something, `reload` changed nothing or left a part. `health` ends with its verdict: 0 ok, 1 WARNING, 2 CRITICAL.

A router's socket is /run/vipad/NAME/admin.sock unless its configuration says otherwise (node.admin)."
)]
struct Arguments {
    /// The router's admin socket; needed when several routers run on this machine
    #[arg(long, global = true, value_name = "PATH", env = "VIPA_SOCKET")]
    socket: Option<PathBuf>,
    /// Print the answer as one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the cluster's certificates, by which nodes prove to each other who they are
    #[command(subcommand)]
    Pki(Pki),
    /// The router at a glance: VIPAs, owners, targets, links; a target's agent answers too
    Status,
    /// Is this node healthy? A line for each check, the worst first; exit status 0 ok, 1 WARNING, 2 CRITICAL
    Health,
    /// What happened in the cluster: takeovers and why, orders and by whom, listeners, targets, links, reloads, limits
    Events(events::Arguments),
    /// Which target each connection is at
    Connections {
        /// Show at most this many
        #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
        limit: u32,
        /// Only those to this VIPA
        #[arg(long, value_name = "ADDRESS", add = completion::vipas())]
        vipa: Option<IpAddr>,
    },
    /// Who may serve each service, who listens, and how connections are spread
    Distribution,
    /// The report of every change of ownership to this router: how long each step took, what was rebuilt
    Takeovers,
    /// Every packet's fate, counted
    Counters,
    /// Take a changed configuration up: all of it or, when something is wrong or needs a restart, nothing
    Reload {
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Take up what can be, and leave what needs a restart
        #[arg(long, conflicts_with = "dry_run")]
        live: bool,
    },
    /// Compare the connection table with what the targets hold, and show where it differs
    Audit {
        /// Only this VIPA
        #[arg(value_name = "VIPA", add = completion::vipas())]
        vipa: Option<IpAddr>,
        /// Put right what differs
        #[arg(long)]
        repair: bool,
    },
    /// Rehearse a takeover without taking anything: what this router would have, how long it would take, what would be lost
    Drill {
        #[arg(value_name = "VIPA", add = completion::vipas())]
        vipa: IpAddr,
    },
    /// Where the other routers' configurations for a VIPA differ from this one's
    Diff {
        #[arg(value_name = "VIPA", add = completion::vipas())]
        vipa: IpAddr,
    },
    /// What operators have decided by orders and is in force, on every router
    Decisions,
    /// Write every event of this router to a file that `vipa-sim --replay` goes through again, to find out why it did what it did
    #[command(subcommand)]
    Record(Record),
    /// Move a VIPA to another router, or keep one router from owning it
    #[command(subcommand)]
    Vipa(order::Vipa),
    /// Keep new connections away from a target, and send it new ones again
    #[command(subcommand)]
    Target(order::Target),
    /// Keep new connections away from a service, at one target or at all, and send it new ones again
    #[command(subcommand)]
    Service(order::Service),
    /// Take a router or a target out of the cluster's work, and back
    #[command(subcommand)]
    Node(order::Node),
    /// Write the manual pages into a folder: for packages
    #[command(hide = true)]
    GenerateMan {
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// docs/configuration.md, which becomes vipa.toml(5)
        #[arg(long, value_name = "FILE")]
        configuration: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Record {
    /// Begin: to events.rec in the router's state_dir, what was there before to events.rec.1
    Start {
        /// Of both files together; beyond it the oldest events go
        #[arg(long, value_name = "MB", default_value_t = DEFAULT_RECORDING_MB)]
        limit_mb: u32,
    },
    /// End it
    Stop,
}

#[derive(Debug, Subcommand)]
enum Pki {
    /// Make a new authority: ca.pem goes to every node, ca.key signs and stays with you
    Init {
        /// Folder of the certificates
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Make a node's certificate and key, signed by the authority in the same folder: it says what the node may be
    #[command(group = clap::ArgGroup::new("role").required(true).multiple(true))]
    Issue {
        /// The node's name, as in its configuration
        #[arg(value_name = "NODE")]
        node: NodeName,
        /// The node may be a router, where [cluster.routers] names it
        #[arg(long, group = "role")]
        router: bool,
        /// The node may be a target, and report connections to these addresses (agent.address) only
        #[arg(long, group = "role", value_name = "ADDRESS", value_delimiter = ',')]
        target: Vec<IpAddr>,
        /// Folder of the certificates
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    // Where the shell asks for completions, this answers and exits.
    clap_complete::CompleteEnv::with_factory(Arguments::command).complete();
    let arguments = Arguments::parse();
    let told = tell(&arguments).and_then(|(text, status)| match io::stdout().write_all(text.as_bytes()) {
        // Whoever read us has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(status),
        written => written.context("cannot write the answer").map(|()| status),
    });
    match told {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vipactl: {}", with_causes(error.as_ref()));
            let is_unanswered = error.downcast_ref::<status::NoAnswer>().is_some();
            if is_unanswered { ExitCode::from(status::NO_ANSWER) } else { ExitCode::FAILURE }
        }
    }
}

/// What there is to print, and the exit status.
fn tell(arguments: &Arguments) -> anyhow::Result<(String, u8)> {
    let order = |order, drain| Ok((order::carry_out(arguments.socket.as_deref(), arguments.json, order, drain)?, 0));
    let request = match &arguments.command {
        Command::Pki(Pki::Init { dir }) => {
            let pki::Made { certificate, key } = pki::init(dir)?;
            let text = format!(
                "{}: the cluster's authority; goes to every node\n{}: its key; signs certificates, goes to no node\n\
                 Next: vipactl pki issue NODE --router --dir {dir}, and for each target NODE --target ADDRESS --dir {dir}\n",
                certificate.display(),
                key.display(),
                dir = dir.display()
            );
            return Ok((text, 0));
        }
        Command::Pki(Pki::Issue { node, router, target, dir }) => {
            let roles = CertifiedRoles { router: *router, addresses: target.clone() };
            let pki::Made { certificate, key } = pki::issue(dir, node, &roles)?;
            let text = format!(
                "{}: {node}'s certificate, as {roles}\n{}: its key; both go to {node}, with ca.pem\n",
                certificate.display(),
                key.display()
            );
            return Ok((text, 0));
        }
        Command::GenerateMan { folder, configuration } => {
            manual::write_all(Arguments::command(), folder, configuration)?;
            return Ok((String::new(), 0));
        }
        Command::Status => Request::Status,
        Command::Health => Request::Health,
        Command::Events(events) => {
            let socket = ask::find_socket(arguments.socket.as_deref())?;
            return Ok((events::show(&socket, arguments.json, events)?, 0));
        }
        Command::Connections { limit, vipa } => Request::Connections { limit: *limit, vipa: *vipa },
        Command::Distribution => Request::Distribution,
        Command::Takeovers => Request::Takeovers,
        Command::Counters => Request::Counters,
        Command::Reload { dry_run, live } => Request::Reload {
            mode: match (dry_run, live) {
                (true, _) => ReloadMode::DryRun,
                (false, true) => ReloadMode::Live,
                (false, false) => ReloadMode::Whole,
            },
        },
        Command::Audit { vipa, repair } => {
            let mode = if *repair { AuditMode::Repair } else { AuditMode::Look };
            Request::Audit { vipa: *vipa, mode }
        }
        Command::Drill { vipa } => Request::Drill { vipa: *vipa },
        Command::Diff { vipa } => Request::Diff { vipa: *vipa },
        Command::Decisions => Request::Decisions,
        Command::Record(Record::Start { limit_mb }) => {
            Request::Record { what: admin::Record::Start { limit_mb: *limit_mb } }
        }
        Command::Record(Record::Stop) => Request::Record { what: admin::Record::Stop },
        Command::Vipa(vipa) => return order(vipa.order(), None),
        Command::Target(target) => return order(target.order(), target.drain()),
        Command::Service(service) => return order(service.order(), service.drain()),
        Command::Node(node) => return order(node.order(), None),
    };
    let socket = ask::find_socket(arguments.socket.as_deref())?;
    let answer = ask::ask(&socket, &request, &mut |_| {})?;
    let text = if arguments.json { show::json(&answer)? } else { show::text(&answer)? };
    Ok((text, status::of_answer(&answer)))
}
