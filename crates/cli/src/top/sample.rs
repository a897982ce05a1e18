//! One reading of a router: all that a screen shows.

use std::path::Path;

use anyhow::bail;
use vipa_protocol::admin::{Answer, Counters, Distribution, Request, Status};

use crate::ask;

#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) status: Status,
    pub(crate) distribution: Distribution,
    pub(crate) counters: Counters,
}

impl Sample {
    pub(crate) fn read(socket: &Path) -> anyhow::Result<Self> {
        let ask = |request| ask::ask(socket, &request, &mut |_| {});
        // Last what rates are made of: what is asked before takes the longest.
        match (ask(Request::Status)?, ask(Request::Distribution)?, ask(Request::Counters)?) {
            (Answer::Status(status), Answer::Distribution(distribution), Answer::Counters(counters)) => {
                Ok(Self { status: *status, distribution, counters })
            }
            _ => bail!("the router answers another question"),
        }
    }
}
