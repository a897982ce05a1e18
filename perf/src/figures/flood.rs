//! P6: ten million SYNs a second of ever other clients fill the table, beside a million packets a second of established
//! connections.

use vipa_packet::TcpFlags;

use super::forwarding::{ORDINARY_TABLE, capture, job};
use crate::{
    contender::Contender,
    figure::{Case, Owed},
    machine::Machine,
    subject::{Job, Task},
    world::{Family, ForwardingKind, World},
};

const WORLD: World = World { family: Family::Ipv4, way: ForwardingKind::Direct };
const ESTABLISHED: u64 = 100_000;
const OWED_SHARE: f64 = 95.0;

pub(crate) fn measure(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    let devices = capture(machine, WORLD, 1, TcpFlags::SYN)?;
    let job =
        Job { capacity: ORDINARY_TABLE, clients: ESTABLISHED, task: Task::Flood, ..job(machine, WORLD, &devices) };
    let numbers = Contender::report(machine, &job)?;
    let [share, left, established, syns, lost] = numbers[..] else {
        anyhow::bail!("five numbers expected: {numbers:?}")
    };
    Ok(vec![
        Case::new("established packets forwarded, 10 M SYN/s", share * 100.0, "%", Owed::AtLeast(OWED_SHARE))
            .beside("syns_fetched_mps", syns / 1e6)
            .beside("lost_in_the_ring", lost),
        Case::new("established connections evicted", established - left, "connections", Owed::AtMost(0.0))
            .beside("established", established),
    ])
}
