//! Ports and workers: what their drivers and they themselves count.

use vipa_handoff::Count;
use vipa_protocol::admin::{PortList, PortStatus, WorkerList, WorkerStatus};

use crate::control::Control;

/// The ports of the configuration, then kernel interfaces.
pub(crate) fn ports(control: &Control) -> PortList {
    let (conditions, mut statistics) = ((control.probe.conditions)(), (control.probe.statistics)().into_iter());
    let outside = control.routing.ports.len();
    let status = |(index, port): (usize, crate::PortCondition)| PortStatus {
        name: port.name,
        is_kernel_interface: index >= outside,
        up: port.up,
        buffers_free: port.buffers_free,
        buffers: port.buffers,
        statistics: statistics.next().flatten(),
    };
    PortList { ports: conditions.into_iter().enumerate().map(status).collect() }
}

pub(crate) fn workers(control: &Control) -> WorkerList {
    let status = |(worker, shared): (u64, &std::sync::Arc<vipa_handoff::WorkerShared>)| WorkerStatus {
        worker,
        turns: shared.heartbeat.turns(),
        busy_turns: shared.load.busy_turns(),
        busy_ns: u64::try_from(shared.load.busy().as_nanos()).unwrap_or(u64::MAX),
        received: shared.counters.read(Count::Received),
    };
    let uptime = control.clock.now().since(vipa_model::Moment::ZERO);
    WorkerList {
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        workers: (0..).zip(control.channel.workers()).map(status).collect(),
    }
}
