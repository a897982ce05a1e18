//! What the shell completes arguments to: VIPAs, services and nodes, as the router on this machine knows them.
//!
//! `COMPLETE=bash vipactl` prints what a shell has to read once; the package puts that where bash, zsh and fish look. On each
//! press of Tab the shell runs `vipactl`, which asks the router at `$VIPA_SOCKET`, or the only one on this machine.
//! Where none answers there is nothing to complete to, and nothing is said.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use clap_complete::{ArgValueCandidates, CompletionCandidate};
use vipa_protocol::admin::{Answer, Request, Status};

use crate::ask;

/// Who presses Tab does not wait for longer.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn vipas() -> ArgValueCandidates {
    candidates(|status| status.vipas.iter().map(|vipa| vipa.address.to_string()).collect())
}

pub(crate) fn services() -> ArgValueCandidates {
    candidates(|status| {
        let services = status.vipas.iter().flat_map(|vipa| vipa.services.iter().map(|service| (vipa.address, service)));
        let name = |(address, service): (_, &vipa_model::Service)| {
            format!("{}/{}", SocketAddr::new(address, service.ports.first), service.protocol.name())
        };
        services.map(name).collect()
    })
}

pub(crate) fn targets() -> ArgValueCandidates {
    candidates(|status| {
        let linked = status.links.iter().filter_map(|link| link.target);
        let candidates = status.vipas.iter().flat_map(|vipa| vipa.targets.iter().map(|target| target.address));
        linked.chain(candidates).map(|address| address.to_string()).collect()
    })
}

pub(crate) fn routers() -> ArgValueCandidates {
    candidates(|status| {
        let others = status.links.iter().filter(|link| link.target.is_none()).map(|link| &link.node);
        others.chain([&status.node]).map(ToString::to_string).collect()
    })
}

pub(crate) fn nodes() -> ArgValueCandidates {
    candidates(|status| {
        status.links.iter().map(|link| &link.node).chain([&status.node]).map(ToString::to_string).collect()
    })
}

fn candidates(of: fn(&Status) -> BTreeSet<String>) -> ArgValueCandidates {
    ArgValueCandidates::new(move || -> Vec<CompletionCandidate> {
        let asked = std::env::var_os("VIPA_SOCKET").map(PathBuf::from);
        let answer = ask::find_socket(asked.as_deref())
            .and_then(|socket| ask::ask_within(PATIENCE, &socket, &Request::Status, &mut |_| {}));
        match answer {
            Ok(Answer::Status(status)) => of(&status).into_iter().map(CompletionCandidate::new).collect(),
            _ => Vec::new(),
        }
    })
}
