//! P5: connections that one worker opens in a second while its table is half full, SYNs received and forwarded included.

use vipa_packet::TcpFlags;

use super::forwarding::{capture, job};
use crate::{
    contender::Contender,
    figure::{Case, Owed, median},
    machine::Machine,
    ports::Draw,
    subject::{Job, Task},
    world::{Family, ForwardingKind, World},
};

const WORLD: World = World { family: Family::Ipv4, way: ForwardingKind::Direct };
const OWED_MILLIONS: f64 = 4.0;

pub(crate) fn measure(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    let devices = capture(machine, WORLD, 1, TcpFlags::SYN)?;
    let mut cases = Vec::new();
    for (capacity, name) in [(1_000_000, "1 M"), (10_000_000, "10 M")] {
        // Three quarters of the slots are the capacity; 45 % of them are in the table before, 55 % after.
        let clients = capacity as u64 * 45 / 75;
        let draw = Draw::New { from: clients };
        let job = Job { capacity, clients, draw, task: Task::Admit, ..job(machine, WORLD, &devices) };
        let rates: Vec<f64> = Contender::report(machine, &job)?.iter().map(|rate| rate / 1e6).collect();
        let name = format!("new connections, table for {name} half full");
        cases.push(Case::new(name, median(&rates), "M/s", Owed::AtLeast(OWED_MILLIONS)));
    }
    Ok(cases)
}
