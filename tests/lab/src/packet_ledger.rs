//! Counts of a service's packets where they leave the client and where they reach the targets: the difference was lost.
//!
//! The switch counts what comes out of the client's wire, each target what arrives on its own, both by nftables. The
//! two sums are comparable when the wire is quiet: pause the client first.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::netns::{Host, Lab};

/// The counters, and where they are read.
pub struct PacketLedger {
    switch: Host,
    targets: Vec<Host>,
}

/// Packets since the ledger was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub sent: u64,
    pub arrived: u64,
}

impl PacketLedger {
    /// Counts TCP packets from `client` to `service` from now on.
    pub fn open(
        lab: &Lab,
        client: &Host,
        targets: impl IntoIterator<Item = Host>,
        service: SocketAddr,
    ) -> Result<Self> {
        let switch = lab.switch();
        let device = client.name();
        let matching = format!("ip daddr {} tcp dport {}", service.ip(), service.port());
        // At the ingress of the switch's port the client's large segments are already cut.
        switch.nft(&format!(
            "add table netdev ledger\nadd counter netdev ledger seen\n\
             add chain netdev ledger watch {{ type filter hook ingress device \"{device}\" priority 0; }}\n\
             add rule netdev ledger watch {matching} counter name seen\n"
        ))?;
        let targets: Vec<Host> = targets.into_iter().collect();
        for target in &targets {
            target.nft(&format!(
                "add table ip ledger\nadd counter ip ledger seen\n\
                 add chain ip ledger watch {{ type filter hook prerouting priority -300; }}\n\
                 add rule ip ledger watch {matching} counter name seen\n"
            ))?;
        }
        Ok(Self { switch, targets })
    }

    pub fn read(&self) -> Result<Account> {
        let mut arrived = 0;
        for target in &self.targets {
            arrived += packets(target, "ip", "ledger")?;
        }
        Ok(Account { sent: packets(&self.switch, "netdev", "ledger")?, arrived })
    }
}

impl Account {
    /// The increase since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { sent: self.sent - earlier.sent, arrived: self.arrived - earlier.arrived }
    }

    #[must_use]
    pub fn lost(self) -> u64 {
        self.sent.saturating_sub(self.arrived)
    }
}

/// The value of the counter `seen` of a table.
pub(crate) fn packets(host: &Host, family: &str, table: &str) -> Result<u64> {
    let text = host.run("nft", ["-j", "list", "counter", family, table, "seen"])?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    let entries = json["nftables"].as_array().context("nft lists nothing")?;
    entries
        .iter()
        .find_map(|entry| entry["counter"]["packets"].as_u64())
        .with_context(|| format!("no counter in what nft says: {text}"))
}
