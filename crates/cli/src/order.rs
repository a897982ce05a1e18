//! Orders: what `vipactl` may be told to have done, and the wait for it.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use vipa_model::{NodeName, Protocol};
use vipa_protocol::{
    Order,
    admin::{Answer, DistributionRow, Request},
};

use crate::{ask, completion, show};

/// How often connections that run out are looked at.
const DRAIN_LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(crate) enum Vipa {
    /// Have a router own a VIPA, without losing a packet
    ///
    /// The router completes its table first, then takes the VIPA over; the owner forwards what still reaches it. From
    /// then on the router comes before all others for this VIPA, whatever the ranks say, until the VIPA is moved again or
    /// `vipa takeback` ends it. VIPAs of one group move together. Any router can be asked.
    Move {
        #[arg(value_name = "VIPA", add = completion::vipas())]
        vipa: IpAddr,
        /// The router that is to own it; it must have a rank for the VIPA
        #[arg(value_name = "ROUTER", add = completion::routers())]
        router: NodeName,
    },
    /// Have this router give a VIPA up, and not own it again until it is reactivated
    ///
    /// The next router in line takes it over when it is ready; not a packet is lost. The decision outlives restarts of
    /// this router. It is refused when no other router may take the VIPA.
    Deactivate {
        #[arg(value_name = "VIPA", add = completion::vipas())]
        vipa: IpAddr,
        /// Also when nobody is there to take it: then its connections end
        #[arg(long)]
        force: bool,
    },
    /// Let this router own a VIPA again that was deactivated on it
    ///
    /// If it comes before the present owner it takes the VIPA back, as `takeback` in the configuration has it.
    Reactivate {
        #[arg(value_name = "VIPA", add = completion::vipas())]
        vipa: IpAddr,
    },
    /// Have the router of the highest rank take a VIPA back now
    ///
    /// Ends a `vipa move`, and is what a VIPA with takeback = "manual" waits for. Not a packet is lost.
    Takeback {
        #[arg(value_name = "VIPA", add = completion::vipas())]
        vipa: IpAddr,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Target {
    /// Send a target no new connections; those it has run out
    ///
    /// All routers keep to it, whoever owns the VIPAs, until `target resume`.
    Quiesce {
        /// The target's address, as in the services' candidates
        #[arg(value_name = "ADDRESS", add = completion::targets())]
        target: IpAddr,
        /// Wait until it has no connections any more
        #[arg(long)]
        drain: bool,
    },
    /// Send it new connections again
    Resume {
        #[arg(value_name = "ADDRESS", add = completion::targets())]
        target: IpAddr,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Send a service no new connections, at one target or at all; those there are run out
    ///
    /// All routers keep to it, whoever owns the VIPA, until `service resume` of the same.
    Quiesce {
        /// VIPA, port and protocol: 192.0.2.10:80/tcp or [2001:db8::10]:53/udp; of several ports any one
        #[arg(value_name = "VIPA:PORT/tcp", add = completion::services())]
        service: ServiceName,
        /// Only at this target
        #[arg(value_name = "TARGET", add = completion::targets())]
        target: Option<IpAddr>,
        /// Wait until there are no connections any more
        #[arg(long)]
        drain: bool,
    },
    /// Send it new connections again
    Resume {
        #[arg(value_name = "VIPA:PORT/tcp", add = completion::services())]
        service: ServiceName,
        /// Only at this target
        #[arg(value_name = "TARGET", add = completion::targets())]
        target: Option<IpAddr>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Take a node out: a router gives up all it owns, a target gets no new connections
    ///
    /// It stays so across restarts until `node join`. The node goes on voting, if it is a voter; stop it when it has left.
    Leave {
        /// A router or a target; this router when left out
        #[arg(value_name = "NODE", add = completion::nodes())]
        node: Option<NodeName>,
        /// Also when nobody is there to take what it owns: then those connections end
        #[arg(long)]
        force: bool,
    },
    /// Take it in again
    Join {
        /// A router or a target; this router when left out
        #[arg(value_name = "NODE", add = completion::nodes())]
        node: Option<NodeName>,
    },
}

/// `192.0.2.10:80/tcp`; without a protocol it is tcp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceName {
    pub(crate) vipa: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

impl FromStr for ServiceName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no service; write 192.0.2.10:80/tcp or [2001:db8::10]:53/udp");
        let (place, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(wrong()),
        };
        let place: SocketAddr = place.parse().map_err(|_| wrong())?;
        Ok(Self { vipa: place.ip(), port: place.port(), protocol })
    }
}

impl Vipa {
    pub(crate) fn order(&self) -> Order {
        match self {
            Self::Move { vipa, router } => Order::Move { vipa: *vipa, to: router.clone() },
            Self::Deactivate { vipa, force } => Order::Deactivate { vipa: *vipa, force: *force },
            Self::Reactivate { vipa } => Order::Reactivate { vipa: *vipa },
            Self::Takeback { vipa } => Order::Takeback { vipa: *vipa },
        }
    }
}

/// The connections that are waited for: of this service or of all, at this target or at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    service: Option<ServiceName>,
    target: Option<IpAddr>,
}

impl Target {
    pub(crate) fn order(&self) -> Order {
        match self {
            Self::Quiesce { target, drain: _ } => Order::QuiesceTarget { target: *target },
            Self::Resume { target } => Order::ResumeTarget { target: *target },
        }
    }

    pub(crate) fn drain(&self) -> Option<Drain> {
        match self {
            Self::Quiesce { target, drain: true } => Some(Drain { service: None, target: Some(*target) }),
            Self::Quiesce { drain: false, .. } | Self::Resume { .. } => None,
        }
    }
}

impl Service {
    pub(crate) fn order(&self) -> Order {
        match self {
            Self::Quiesce { service: ServiceName { vipa, port, protocol }, target, drain: _ } => {
                Order::QuiesceService { vipa: *vipa, protocol: *protocol, port: *port, target: *target }
            }
            Self::Resume { service: ServiceName { vipa, port, protocol }, target } => {
                Order::ResumeService { vipa: *vipa, protocol: *protocol, port: *port, target: *target }
            }
        }
    }

    pub(crate) fn drain(&self) -> Option<Drain> {
        match self {
            Self::Quiesce { service, target, drain: true } => Some(Drain { service: Some(*service), target: *target }),
            Self::Quiesce { drain: false, .. } | Self::Resume { .. } => None,
        }
    }
}

impl Node {
    pub(crate) fn order(&self) -> Order {
        match self {
            Self::Leave { node, force } => Order::Leave { node: node.clone(), force: *force },
            Self::Join { node } => Order::Join { node: node.clone() },
        }
    }
}

/// Gives the order and waits for it, and for connections to run out if that is asked for.
pub(crate) fn carry_out(
    socket: Option<&Path>,
    json: bool,
    order: Order,
    drain: Option<Drain>,
) -> anyhow::Result<String> {
    let socket = ask::find_socket(socket)?;
    let mut last = String::new();
    let mut progress = |sentence: &str| {
        // The same news again is no news.
        if sentence != last {
            eprintln!("… {sentence}");
            sentence.clone_into(&mut last);
        }
    };
    let answer = ask::ask(&socket, &Request::Order { order }, &mut progress)?;
    if let Some(drain) = drain {
        loop {
            let left = connections(&socket, drain)?;
            if left == 0 {
                break;
            }
            progress(&format!("{left} connections run out"));
            std::thread::sleep(DRAIN_LOOK);
        }
    }
    if json { show::json(&answer) } else { show::text(&answer) }
}

fn connections(socket: &Path, drain: Drain) -> anyhow::Result<u64> {
    let answer =
        ask::ask(socket, &Request::Distribution, &mut |_| {}).context("cannot see whether connections run out")?;
    let Answer::Distribution(distribution) = answer else { bail!("the router answers another question") };
    let mut left = 0;
    for vipa in distribution.vipas {
        for shown in vipa.services {
            let meant = drain.service.is_none_or(|name| {
                let of = &shown.service;
                name.vipa == vipa.vipa && name.protocol == of.protocol && of.ports.contains(name.port)
            });
            let at = |row: &&DistributionRow| meant && drain.target.is_none_or(|target| target == row.target);
            left += shown.targets.iter().filter(at).map(|row| row.connections).sum::<u64>();
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_by_address_port_and_protocol() {
        let name = |text: &str| text.parse::<ServiceName>();
        let vipa = IpAddr::from([192, 0, 2, 10]);
        assert_eq!(name("192.0.2.10:80/tcp"), Ok(ServiceName { vipa, port: 80, protocol: Protocol::Tcp }));
        assert_eq!(name("192.0.2.10:80"), name("192.0.2.10:80/tcp"));
        assert_eq!(name("[2001:db8::10]:53/udp").unwrap().protocol, Protocol::Udp);
        for wrong in ["192.0.2.10/tcp", "192.0.2.10:80/sctp", "2001:db8::10", "r1:80"] {
            assert!(name(wrong).unwrap_err().starts_with(&format!("{wrong:?} is no service")));
        }
    }
}
