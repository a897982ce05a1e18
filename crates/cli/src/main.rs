//! `vipactl`: makes a cluster's certificates, asks a router what it is doing, and gives it orders.

#![forbid(unsafe_code)]

mod ask;
mod bundle;
mod capture;
mod completion;
mod doctor;
mod events;
mod manual;
mod order;
mod pki_show;
mod rates;
mod show;
mod status;
mod table;
mod top;
mod width;

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use vipa_model::{Connection, NodeName, with_causes};
use vipa_protocol::admin::{
    self, AuditMode, ConnectionFilter, CountBy, DEFAULT_LIMIT, DEFAULT_RECORDING_MB, ReloadMode, Request, Stage,
};
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
  vipactl pki show pki                  whose certificates there are, for what, and until when
  vipactl pki issue r1 --renew --dir pki                a new one for the same node and roles
  vipactl doctor r1.toml                can this machine do what the configuration asks? What mends it?
  vipactl status                        who owns what, who is linked, which targets are known
  vipactl health                        is all well? For people, monitoring and HEALTHCHECK
  vipactl events -f --since 10m         what has happened in the last ten minutes, and what happens
  vipactl connections --limit 100       which connection is at which target
  vipactl connections --count-by target how many each target has
  vipactl explain 203.0.113.4:40000 192.0.2.10:80/tcp   where this connection's next packet goes, and why
  vipactl counters --rate 1s --nonzero --why            what happens to packets now, and what to do about drops
  vipactl reload --dry-run              what would change if the configuration were read again
  vipactl reload --confirm 60s          try it: it is taken back in a minute unless `vipactl confirm` comes
  vipactl drill 192.0.2.100             on a backup: what would come of a takeover now
  vipactl audit --repair                does the table know what the targets hold? Make it so
  vipactl takeovers --json              for scripts: the same as one JSON document
  vipactl vipa move 192.0.2.10 r2       r2 takes the VIPA over, and not a packet is lost
  vipactl target quiesce 10.0.0.31      no new connections to this target; those it has run out
  vipactl node leave                    this router gives up all it owns, say for maintenance; `join` ends that
  vipactl top                           what happens now: VIPAs, targets, drops, workers
  vipactl capture -w x.pcapng --vipa 192.0.2.10 --fate 'dropped.*'   the packets that are dropped, for Wireshark
  vipactl bundle                        what a bug report needs, in one archive
  vipactl record start                  write down every event, to be replayed where there is time to look

Exit status: 0 done, 1 refused, 2 wrong usage, 3 not found, 4 no answer, 5 an answer to look at: `diff` or `audit` differ, `drill`
would lose something, `reload` changed nothing or left a part, `explain` finds a packet that does not go on. `health` ends with its
verdict: 0 ok, 1 WARNING, 2 CRITICAL.

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
    /// Whether this machine can do what a configuration asks: one line a check, with the command that mends what is wrong
    ///
    /// Looks at drivers, cards, cores, memory, hugepages, certificates, files, addresses, offloads and the state directory, and asks the
    /// other routers for a link and the targets behind tunnels for a long packet. Changes nothing. Ends with status 1 if something would
    /// do harm. Run it as the user that runs the daemon, or as root. A running daemon is not disturbed.
    Doctor {
        /// The configuration of a router or a target
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
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
        /// Only those of this client
        #[arg(long, value_name = "ADDRESS")]
        client: Option<IpAddr>,
        /// Only those at this target
        #[arg(long, value_name = "ADDRESS")]
        target: Option<IpAddr>,
        /// Only those in this state: half-open, open (no target has reported it yet), confirmed, closing or udp
        #[arg(long, value_name = "STATE", value_parser = parse_stage)]
        state: Option<Stage>,
        /// Count them by target, state, client or service, and show the N largest groups
        #[arg(long, value_name = "WHAT", value_parser = parse_count_by)]
        count_by: Option<CountBy>,
    },
    /// What becomes of a connection's next packet: the table's entry or the choice, the path, the fate, and what to do about a drop
    Explain {
        /// The client's address and port
        #[arg(value_name = "CLIENT:PORT")]
        client: SocketAddr,
        /// VIPA, port and protocol: 192.0.2.10:80/tcp or [2001:db8::10]:53/udp
        #[arg(value_name = "VIPA:PORT/tcp")]
        service: order::ServiceName,
    },
    /// Who may serve each service, who listens, and how connections are spread
    Distribution,
    /// The report of every change of ownership to this router: how long each step took, what was rebuilt
    Takeovers,
    /// Every packet's fate, counted
    Counters(rates::Shown),
    /// What happens now, on a screen that renews itself: VIPAs, targets, drops, workers; F1 shows the keys
    Top(top::Options),
    /// Write packets that come in and go out to a file for Wireshark, each with its fate as its comment
    ///
    /// While it lasts the workers take packets one at a time, which costs throughput; without a capture it costs nothing. One
    /// capture runs at a time.
    Capture(capture::Options),
    /// Take a changed configuration up: all of it or, when something is wrong or needs a restart, nothing
    Reload {
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Take up what can be, and leave what needs a restart
        #[arg(long, conflicts_with = "dry_run")]
        live: bool,
        /// Fall back to the former configuration after this time, unless `vipactl confirm` comes before: 30s, 5m; at most 1h
        #[arg(long, value_name = "TIME", value_parser = rates::parse_time, conflicts_with = "dry_run")]
        confirm: Option<Duration>,
    },
    /// Keep a configuration that was reloaded with --confirm
    Confirm {
        /// Fall back to the former configuration now
        #[arg(long)]
        undo: bool,
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
    /// Collect what a bug report needs in one archive, secrets left out: status, counters, configuration, host, log, recording
    Bundle(bundle::Options),
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
        /// How long it is valid; no node's certificate should be valid for longer
        #[arg(long, value_name = "DAYS", default_value_t = pki::DEFAULT_DAYS)]
        days: u32,
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
        /// Replace the certificate and key that are there: the same name and roles, a new key and serial number
        #[arg(long, group = "role", conflicts_with_all = ["router", "target"])]
        renew: bool,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = pki::DEFAULT_DAYS)]
        days: u32,
        /// Folder of the certificates
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Make the certificate and key of somebody who uses the API, signed by the authority in the same folder: no node links with it
    Client {
        /// The name in api.read or api.operate of the routers' configurations
        #[arg(value_name = "NAME")]
        name: NodeName,
        /// Folder of the certificates
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Say what certificates say: whose, for what, from whom, until when, and what to do about it
    Show {
        /// A PEM file, or a folder with some
        #[arg(value_name = "FILE|DIR", default_value = ".")]
        path: PathBuf,
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
            ExitCode::from(status::of_error(&error))
        }
    }
}

fn parse_stage(text: &str) -> Result<Stage, String> {
    let names = Stage::LISTED.map(Stage::name);
    let found = Stage::LISTED.into_iter().find(|stage| stage.name() == text);
    found.ok_or_else(|| format!("{text:?} is no state; there are {}", names.join(", ")))
}

fn parse_count_by(text: &str) -> Result<CountBy, String> {
    let names = CountBy::ALL.map(CountBy::name);
    let found = CountBy::ALL.into_iter().find(|by| by.name() == text);
    found.ok_or_else(|| format!("connections cannot be counted by {text:?}; only by {}", names.join(", ")))
}

/// The counters, and their rates.
fn tell_counters(arguments: &Arguments, shown: rates::Shown) -> anyhow::Result<(String, u8)> {
    let socket = ask::find_socket(arguments.socket.as_deref())?;
    let (counters, rates) = rates::read_counters(&socket, shown.rate)?;
    let mut text = String::new();
    match (arguments.json, rates) {
        (true, None) => text = show::json(&admin::Answer::Counters(counters))?,
        (true, Some(rates)) => {
            text = serde_json::json!({ "counters": counters, "rates": rates.as_maps() }).to_string() + "\n"
        }
        (false, rates) => rates::show(&mut text, &counters, rates.as_ref(), shown, width::of_terminal()),
    }
    Ok((text, 0))
}

/// What there is to print, and the exit status.
fn tell(arguments: &Arguments) -> anyhow::Result<(String, u8)> {
    let order = |order, drain| Ok((order::carry_out(arguments.socket.as_deref(), arguments.json, order, drain)?, 0));
    let request = match &arguments.command {
        Command::Pki(Pki::Init { days, dir }) => {
            let pki::Made { certificate, key } = pki::init_for(dir, *days)?;
            let text = format!(
                "{}: the cluster's authority; goes to every node\n{}: its key; signs certificates, goes to no node\n\
                 Next: vipactl pki issue NODE --router --dir {dir}, and for each target NODE --target ADDRESS --dir {dir}\n",
                certificate.display(),
                key.display(),
                dir = dir.display()
            );
            return Ok((text, 0));
        }
        Command::Pki(Pki::Show { path }) => return pki_show::show(path, arguments.json),
        Command::Pki(Pki::Issue { node, renew: true, days, dir, .. }) => {
            let pki::Made { certificate, key } = pki::renew(dir, node, *days)?;
            let text = format!(
                "{}: {node}'s new certificate, valid for {days} days\n{}: its new key; copy both over {node}'s, which takes them up by itself\n",
                certificate.display(),
                key.display()
            );
            return Ok((text, 0));
        }
        Command::Pki(Pki::Issue { node, router, target, days, dir, .. }) => {
            let roles = CertifiedRoles { router: *router, addresses: target.clone() };
            let pki::Made { certificate, key } = pki::issue_for(dir, node, &roles, *days)?;
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
        Command::Pki(Pki::Client { name, dir }) => {
            let pki::Made { certificate, key } = pki::issue_client(dir, name)?;
            let text = format!(
                "{}: {name}'s certificate, as a client of the API\n{}: its key; both go to {name}, with ca.pem\n\
                 Next: name {name} in [api] of the routers' configurations: read = [\"{name}\"], or operate\n",
                certificate.display(),
                key.display()
            );
            return Ok((text, 0));
        }
        Command::Doctor { config } => return doctor::examine(config, arguments.json),
        Command::Status => Request::Status,
        Command::Health => Request::Health,
        Command::Events(events) => {
            let socket = ask::find_socket(arguments.socket.as_deref())?;
            return Ok((events::show(&socket, arguments.json, events)?, 0));
        }
        Command::Connections { limit, vipa, client, target, state, count_by } => {
            let filter = ConnectionFilter { vipa: *vipa, client: *client, target: *target, state: *state };
            Request::Connections { limit: *limit, filter, count_by: *count_by }
        }
        Command::Explain { client, service: order::ServiceName { vipa, port, protocol } } => Request::Explain {
            vipa: *vipa,
            connection: Connection { protocol: *protocol, client: *client, port: *port },
        },
        Command::Distribution => Request::Distribution,
        Command::Takeovers => Request::Takeovers,
        Command::Capture(options) => {
            let socket = ask::find_socket(arguments.socket.as_deref())?;
            return Ok((capture::run(&socket, options)?, 0));
        }
        Command::Bundle(options) => return bundle::collect(&ask::find_socket(arguments.socket.as_deref())?, options),
        Command::Top(options) => {
            return Ok((top::run(&ask::find_socket(arguments.socket.as_deref())?, options)?, 0));
        }
        Command::Counters(shown) => return tell_counters(arguments, *shown),
        Command::Confirm { undo } => Request::Confirm { undo: *undo },
        Command::Reload { dry_run, live, confirm } => Request::Reload {
            confirm_ms: confirm.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through all commands, and says what they lack.
    fn lacking(command: &clap::Command, name: &str, lacks: &mut Vec<String>) {
        if command.get_about().is_none() {
            lacks.push(format!("{name} does not say what it does"));
        }
        for argument in command.get_arguments().filter(|argument| argument.get_help().is_none()) {
            // What stands for itself: `vipa move VIPA ROUTER`.
            if !argument.is_positional() {
                lacks.push(format!("{name}: --{} is not explained", argument.get_id()));
            }
        }
        for inner in command.get_subcommands() {
            lacking(inner, &format!("{name} {}", inner.get_name()), lacks);
        }
    }

    #[test]
    fn every_command_and_option_says_what_it_does() {
        Arguments::command().debug_assert();
        let mut lacks = Vec::new();
        lacking(&Arguments::command(), "vipactl", &mut lacks);
        assert_eq!(lacks, [""; 0]);
    }
}
