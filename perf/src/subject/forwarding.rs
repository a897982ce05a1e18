//! Workers that forward until they are told to stop, and the loop without a worker beside which they are measured.

use std::{
    io::{BufRead, Write},
    sync::Arc,
    thread,
    time::Instant,
};

use arrayvec::ArrayVec;
use vipa_dataplane::{BURST, IdlePolicy, Limits, Rx, Tx, Worker};
use vipa_handoff::{Count, Counters};
use vipa_model::Moment;
use vipa_sync::Flag;

use super::{Job, Ports, join, open_door};

/// Answers each line of input with the number of packets sent so far, and ends with the input.
fn answer(sent: impl Fn() -> u64) -> anyhow::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    output.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        writeln!(output, "{}", sent())?;
        output.flush()?;
    }
    Ok(())
}

pub(super) fn forward(job: &Job) -> anyhow::Result<()> {
    let flows = job.world.flows(job.capacity, job.clients)?;
    let Ports { eal, _ports, workers } = Ports::open(job)?;
    let (control, channels) = open_door(job, workers.len())?;
    let start = Instant::now();
    thread::scope(|scope| {
        for ((channel, (rx_ports, outlets)), core) in channels.into_iter().zip(workers).zip(job.cores.iter().copied()) {
            let (eal, flows) = (&eal, Arc::clone(&flows));
            scope.spawn(move || {
                let _joined = join(eal, core).expect("a worker's thread becomes one of DPDK's");
                Worker::new(channel, flows, rx_ports, outlets, Limits::default())
                    .run(IdlePolicy::Spin, || Moment(start.elapsed().as_nanos() as u64));
            });
        }
        let answered = answer(|| control.totals().count(Count::Sent));
        control.stop();
        answered
    })?;
    let totals = control.totals();
    anyhow::ensure!(totals.add_up(), "the fates do not add up: {totals:?}");
    Ok(())
}

pub(super) fn bare(job: &Job) -> anyhow::Result<()> {
    let Ports { eal, _ports, workers } = Ports::open(job)?;
    let (stop, counters) = (Flag::default(), Counters::default());
    thread::scope(|scope| {
        for ((mut rx_ports, mut outlets), core) in workers.into_iter().zip(job.cores.iter().copied()) {
            let (eal, stop, counters) = (&eal, &stop, &counters);
            scope.spawn(move || {
                let _joined = join(eal, core).expect("a worker's thread becomes one of DPDK's");
                let mut burst = ArrayVec::<_, BURST>::new();
                let Some(outlet) = outlets.last_mut() else { return };
                while !stop.is_raised() {
                    for rx_port in &mut rx_ports {
                        rx_port.rx.burst(&mut burst);
                        if !burst.is_empty() {
                            counters.add(Count::Sent, burst.len() as u64);
                            outlet.burst(&mut burst);
                            burst.clear();
                        }
                    }
                }
            });
        }
        let answered = answer(|| counters.read(Count::Sent));
        stop.raise();
        answered
    })
}
