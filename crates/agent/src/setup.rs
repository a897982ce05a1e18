//! `vipa-agent --print-setup`: the changes that the agent would make on this host, without making them; and `vipa-agent
//! cleanup`, which undoes them.

use anyhow::Context;
use vipa_model::config::{Agent, Config};

use crate::{address, decap, host, kernel};

/// Prints the changes.
pub(crate) async fn print(config: &Config, agent: &Agent) -> anyhow::Result<()> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    println!("vipa-agent {} on this host, undone by `vipa-agent cleanup`:", config.node.name);
    let mut plan = address::plan(agent);
    plan.extend(kernel::plan(agent));
    plan.extend(decap::plan(agent, &netlink).await);
    for Item { what, how } in plan {
        println!("  {what:<8} {how}");
    }
    println!("What is changed is written down first, in {}.", config.node.state_dir.display());
    Ok(())
}

/// Undoes what a stopped agent has left on this host, and prints it.
pub(crate) async fn clean_up(config: &Config, agent: &Agent) -> anyhow::Result<()> {
    let admin = &config.node.admin;
    anyhow::ensure!(
        std::os::unix::net::UnixStream::connect(admin).is_err(),
        "the agent runs, as {} says; stop it first, or have it end with its last connection: vipa-agent drain",
        admin.display()
    );
    let undone = host::clean_up(agent, &config.node.state_dir).await?;
    undone.iter().for_each(|line| println!("{line}"));
    if undone.is_empty() {
        println!("there was nothing to undo");
    }
    Ok(())
}

/// One change that would be made, or a remark.
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
