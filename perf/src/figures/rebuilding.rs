//! P7: how fast a router that has just taken over and knows nothing takes in what the targets report, and what that costs
//! the worker that forwards meanwhile. Both ends of it are real: the agents' messages as bytes, and the table a worker
//! looks connections up in. The links' own cost, QUIC, is not in it.

use super::forwarding::{CAPTURED, devices, job};
use crate::{
    contender::Contender,
    figure::{Case, Owed, median},
    machine::Machine,
    subject::{Job, Task},
    world::{Family, ForwardingKind, World},
};

const WORLD: World = World { family: Family::Ipv4, way: ForwardingKind::Direct };
const CAPACITY: usize = 8_000_000;
const OWED_MPS: f64 = 5.0;
const OWED_LOSS: f64 = 10.0;

pub(crate) fn measure(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    anyhow::ensure!(machine.measured != machine.other, "this machine has one core");
    let devices = devices(machine, WORLD, 1)?;
    let task = Task::Rebuild { control: machine.other.id };
    let job = Job { capacity: CAPACITY, clients: CAPTURED, task, ..job(machine, WORLD, &devices) };
    let numbers = Contender::report(machine, &job)?;
    let of = |place: usize| numbers.iter().skip(place).step_by(3).copied().collect::<Vec<f64>>();
    let (rebuilt, meanwhile, without) = (of(0), of(1), of(2));
    let losses: Vec<f64> =
        meanwhile.iter().zip(&without).map(|(with, without)| 100.0 * (1.0 - with / without)).collect();
    Ok(vec![
        Case::new("4 M connections rebuilt from reports", median(&rebuilt) / 1e6, "M/s", Owed::AtLeast(OWED_MPS)),
        Case::new("forwarding lost meanwhile, on another core", median(&losses), "%", Owed::AtMost(OWED_LOSS))
            .beside("meanwhile_mpps", median(&meanwhile) / 1e6)
            .beside("without_mpps", median(&without) / 1e6),
    ])
}
