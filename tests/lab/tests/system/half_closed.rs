//! A half-closed connection lives for as long as its ends want, silence included: a connection that its target holds
//! does not age.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, Unreported},
    load::{Ending, RequestSettings, Requests},
    process::wait,
};

use vipa_protocol::Trigger;

use crate::requests_kept;

/// Half-closed connections, of each direction.
const EACH: u16 = 12;
/// Bytes sent after the silence.
const LATE_BYTES: usize = 2_000_000;
/// `closing_s` is 2, and an entry may be kept four seconds longer than it states.
const SILENCE: Duration = Duration::from_secs(10);

fn start_clients(cluster: &Cluster, name: &str) -> Result<Requests> {
    let silence_ms = SILENCE.as_millis() as u64;
    let settings = RequestSettings {
        endings: vec![Ending::ClientHalfCloses, Ending::ServerHalfCloses],
        clients: 2 * EACH,
        count: Some(2 * u64::from(EACH)),
        silence_ms: (silence_ms, silence_ms),
        answer_bytes: LATE_BYTES,
        late_bytes: LATE_BYTES,
        ..RequestSettings::new(Cluster::service(), Ending::ClientHalfCloses)
    };
    let mut client = Requests::start(cluster.client_host(), name, &settings)?;
    let all = |report: &vipa_lab::load::RequestReport| report.answered == 2 * u64::from(EACH);
    client.wait_for("every connection to be half closed", PATIENCE, all)?;
    Ok(client)
}

#[test]
fn half_closed_connections_outlive_a_silence_longer_than_closing_s_and_a_takeover_within_it() {
    let table_lines = "closing_s = 2\naudit_s = 0\n".into();
    Plan { table_lines, ..Plan::new("half_closed") }.run(|cluster| {
        let early = start_clients(cluster, "early")?;
        sleep(SILENCE / 2);
        let late = start_clients(cluster, "late")?;
        let began = Instant::now();
        requests_kept(early)?;
        cluster.router("r1").kill()?;
        cluster.wait_takeover("r2", Trigger::Failure)?;
        ensure!(began.elapsed() < SILENCE, "the takeover came within the silence");
        requests_kept(late)?;
        served(cluster, 4 * u64::from(EACH))?;
        cluster.wait_agreement(Unreported::MayBe)
    });
}

/// Waits until the servers have received every byte of this many connections.
fn served(cluster: &mut Cluster, count: u64) -> Result<()> {
    wait(&format!("the servers to have served {count} connections"), PATIENCE, || {
        let served = cluster.targets().iter().map(|name| cluster.target(name).served().requests).sum::<u64>();
        (served == count).then_some(())
    })
}
