//! The VIPA moves between routers again and again while connections are opened: a SYN that is sent again goes where the first went.

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, VIPA},
    load::{Ending, RequestSettings, Requests},
};

use crate::requests_kept;

fn move_to(cluster: &mut Cluster, router: &str) -> Result<()> {
    cluster.router(router).vipactl(&["vipa", "move", &VIPA.to_string(), router]).map(drop)
}

/// The client loses so many of a hundred of its first SYN-ACKs, and sends its SYN again a second later.
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
        Ok(())
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
