//! Ended connections leave the table: at once if their target reports the end, however long the table would have kept
//! them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use vipa_lab::cluster::Plan;

use crate::{CONNECTIONS, all_kept};

#[test]
fn r03_a_connection_that_ends_leaves_the_table_as_soon_as_its_target_says_so() {
    Plan::new("r03_ended").run(|cluster| {
        let client = cluster.client(CONNECTIONS)?;
        for router in ["r1", "r2"] {
            cluster
                .wait_view(router, "every connection to be reported", |view| view.confirmed >= CONNECTIONS as u64)?;
        }
        all_kept(cluster, client)?;
        let ended = Instant::now();
        for router in ["r1", "r2"] {
            // Connections of which only the end of a handshake was seen stay for a while.
            cluster
                .wait_view(router, "the ended ones to be gone", |view| view.connections < CONNECTIONS as u64 / 20)?;
        }
        // Ageing alone would take the configuration's two minutes.
        ensure!(ended.elapsed() < Duration::from_secs(10), "it took {:?}", ended.elapsed());
        Ok(())
    });
}
