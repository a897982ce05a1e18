//! P5's subject: SYNs of ever new clients around a half full table.

use std::time::Instant;

use anyhow::Context;
use vipa_handoff::Count;
use vipa_model::Moment;

use super::{Job, Single};
use crate::{ports::Draw, world};

const ROUNDS: u64 = 5;

/// Prints each round's new connections a second. `job.clients` are in the table before: a little less than half of it.
pub(super) fn measure(job: &Job) -> anyhow::Result<()> {
    let mut single = Single::prepare(job)?;
    let Single { worker, control, flows, .. } = &mut single;
    let slots = flows.ipv4.slots() as u64;
    // As many below half as above.
    let new = 2 * (slots / 2).saturating_sub(job.clients);
    let start = Instant::now();
    let now = || Moment(1_000_000_000 + start.elapsed().as_nanos() as u64);
    for _ in 0..ROUNDS {
        worker.rx(0).context("a worker has an rx_port")?.draw(Draw::New { from: job.clients });
        let before = control.totals().count(Count::FlowOpened);
        let begun = Instant::now();
        let opened = loop {
            for _ in 0..256 {
                worker.turn(&now);
            }
            let opened = control.totals().count(Count::FlowOpened) - before;
            if opened >= new {
                break opened;
            }
        };
        println!("{}", opened as f64 / begun.elapsed().as_secs_f64());
        for n in job.clients..job.clients + opened + 256 * 32 {
            flows.ipv4.remove(&world::key(n), None);
        }
    }
    Ok(())
}
