//! P12: what a worker with the ordinary idle policy costs on a port without traffic.

use super::forwarding::job;
use crate::{
    contender::Contender,
    figure::{Case, Owed},
    machine::Machine,
    subject::{Job, Task},
    world::{Family, ForwardingKind, World},
};

const OWED_PERCENT: f64 = 3.0;

pub(crate) fn measure(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    let world = World { family: Family::Ipv4, way: ForwardingKind::Direct };
    let job = Job { task: Task::Idle, ..job(machine, world, &["net_ring0".to_owned()]) };
    let share = Contender::report(machine, &job)?;
    anyhow::ensure!(share.len() == 1, "one number expected: {share:?}");
    Ok(vec![Case::new("idle, sleep policy, as owner", share[0] * 100.0, "% of a core", Owed::AtMost(OWED_PERCENT))])
}
