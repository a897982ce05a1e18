//! The VIPA moves between routers again and again while connections come and go. The tables stay equal to what the
//! targets hold, and a repeated SYN goes to the target of the first one.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, Unreported, VIPA},
    load::{ClientPlan, Ending, RequestSettings, Requests},
};

use crate::{CONNECTIONS, all_kept, requests_kept};

fn move_to(cluster: &mut Cluster, router: &str) -> Result<()> {
    cluster.router(router).vipactl(&["vipa", "move", &VIPA.to_string(), router]).map(drop)
}

#[test]
fn after_many_moves_under_churn_every_router_knows_what_the_targets_hold_and_nothing_else() {
    // A router that has yielded forwards for two seconds before it may own again: three moves take that long.
    const MOVES: usize = 50;
    Plan { routers: 3, ..Plan::new("moves_many") }.run(|cluster| {
        let plan = ClientPlan { fresh_per_second: 200, ..ClientPlan::new(Cluster::service(), CONNECTIONS) };
        let client = cluster.client_with(&plan)?;
        let endings = vec![Ending::ServerCloses, Ending::ClientResets, Ending::ClientHalfCloses];
        let settings = RequestSettings {
            endings,
            clients: 6,
            silence_ms: (0, 500),
            first_port: 700,
            ports: 4,
            interval: Duration::from_millis(2),
            ..RequestSettings::new(Cluster::service(), Ending::ServerCloses)
        };
        let churn = Requests::start(cluster.client_host(), "churn", &settings)?;
        for turn in 0..MOVES {
            move_to(cluster, ["r2", "r3", "r1"][turn % 3])?;
        }
        requests_kept(churn)?;
        all_kept(cluster, client)?;
        cluster.wait_agreement(Unreported::Gone)
    });
}

/// The client loses this percentage of its first SYN-ACKs, and repeats its SYN a second later.
const LOST_PERCENT: u8 = 40;
const OPENED: u64 = 5_000;

fn a_syn_sent_again_goes_where_the_first_went(balance: &str, name: &str) {
    let service_lines = format!("balance = \"{balance}\"\n");
    Plan { service_lines, connections: 20_000, ..Plan::new(name) }.run(|cluster| {
        cluster.client_host().nft(&format!(
            "add table ip lossy\n\
             add chain ip lossy in {{ type filter hook prerouting priority -300; }}\n\
             add rule ip lossy in ip saddr {VIPA} tcp flags & (syn | ack) == (syn | ack) numgen random mod 100 < {LOST_PERCENT} drop\n"
        ))?;
        let settings = RequestSettings {
            clients: 400,
            ..RequestSettings::new(Cluster::service(), Ending::ServerCloses)
        };
        let mut client = Requests::start(cluster.client_host(), "client", &settings)?;
        for turn in 0.. {
            if client.report().kept >= OPENED || client.report().broken.total() > 0 {
                break;
            }
            move_to(cluster, ["r2", "r1"][turn % 2])?;
        }
        client.wait_for("the connections", PATIENCE, |report| report.kept >= OPENED || report.broken.total() > 0)?;
        let end = requests_kept(client)?;
        ensure!(end.kept >= OPENED, "{end:#?}");
        cluster.wait_agreement(Unreported::MayBe)
    });
}

#[test]
fn with_round_robin_a_syn_sent_again_during_a_move_goes_where_the_first_went() {
    a_syn_sent_again_goes_where_the_first_went("round-robin", "moves_round_robin");
}

#[test]
fn with_weighted_active_a_syn_sent_again_during_a_move_goes_where_the_first_went() {
    a_syn_sent_again_goes_where_the_first_went("weighted-active", "moves_weighted_active");
}
