//! P12's subject: a worker that sleeps, on a port where nothing arrives.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;
use vipa_dataplane::IdlePolicy;
use vipa_model::Moment;

use super::{Job, Single};

const TIME: Duration = Duration::from_secs(5);
/// `[workers] idle_max_us` unless configured.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// Prints the share of a core.
pub(super) fn measure(job: &Job) -> anyhow::Result<()> {
    let mut single = Single::prepare(job)?;
    let Single { worker, control, .. } = &mut single;
    let (start, begun) = (on_core()?, Instant::now());
    worker.run(IdlePolicy::Sleep { max: LONGEST_SLEEP }, || {
        if begun.elapsed() > TIME {
            control.stop();
        }
        Moment(1_000_000_000 + begun.elapsed().as_nanos() as u64)
    });
    println!("{}", (on_core()? - start) / begun.elapsed().as_nanos() as f64);
    Ok(())
}

/// Nanoseconds this thread has been on a core.
fn on_core() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("Linux counts each thread's time")?;
    Ok(text.split_whitespace().next().context("a number comes first")?.parse()?)
}
