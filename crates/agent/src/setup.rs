//! `vipa-agent --print-setup`: what the agent would change on this host, without changing it.

use anyhow::Context;
use vipa_model::config::{Agent, Config};

use crate::{address, decap, kernel};

/// Prints it.
pub(crate) async fn print(config: &Config, agent: &Agent) -> anyhow::Result<()> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    println!("vipa-agent {} on this host, undone when it is stopped:", config.node.name);
    let mut plan = address::plan(agent);
    plan.extend(kernel::plan(agent));
    plan.extend(decap::plan(agent, &netlink).await);
    for Item { what, how } in plan {
        println!("  {what:<8} {how}");
    }
    println!("What is changed is written down first, in {}.", config.node.state_dir.display());
    Ok(())
}

/// One thing that would be changed, or is to be known.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) what: &'static str,
    pub(crate) how: String,
}

impl Item {
    pub(crate) fn new(what: &'static str, how: impl Into<String>) -> Self {
        Self { what, how: how.into() }
    }
}
