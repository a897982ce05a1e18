//! Which connection is at which target, and how many: found beside the loop, in one walk of the connection table.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use vipa_flow::FlowState;
use vipa_model::{Connection, NodeName, Protocol, VipaId};
use vipa_protocol::admin::{
    Answer, ConnectionFilter, ConnectionRow, Connections, CountBy, CountedConnections, MAX_COUNTED, Stage,
};

use crate::{
    admin::socket::Reply,
    control::{Control, vipa_id},
};

/// What a connection is counted under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Group {
    Address(IpAddr),
    Stage(Stage),
    Service(IpAddr, Protocol, u16),
}

impl Group {
    fn of(by: CountBy, vipa: IpAddr, connection: &Connection, target: IpAddr, stage: Stage) -> Self {
        match by {
            CountBy::Target => Self::Address(target),
            CountBy::Client => Self::Address(connection.client.ip()),
            CountBy::State => Self::Stage(stage),
            CountBy::Service => Self::Service(vipa, connection.protocol, connection.port),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Stage(stage) => stage.name().into(),
            Self::Service(vipa, protocol, port) => format!("{}/{}", SocketAddr::new(vipa, port), protocol.name()),
        }
    }
}

/// The groups of a count, so many at most.
#[derive(Default)]
struct Groups {
    counted: HashMap<Group, u64>,
    others: u64,
}

impl Groups {
    fn add(&mut self, group: Group) {
        if let Some(count) = self.counted.get_mut(&group) {
            *count += 1;
        } else if self.counted.len() < MAX_COUNTED {
            self.counted.insert(group, 1);
        } else {
            self.others += 1;
        }
    }

    /// The largest `limit` of them, and how many connections the rest has.
    fn largest(self, limit: usize) -> (Vec<CountedConnections>, u64) {
        let mut rows: Vec<(Group, u64)> = self.counted.into_iter().collect();
        rows.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(&other.0)));
        let rest = rows.iter().skip(limit).map(|(_, count)| count).sum::<u64>() + self.others;
        rows.truncate(limit);
        let row = |(group, connections): (Group, u64)| CountedConnections { name: group.name(), connections };
        (rows.into_iter().map(row).collect(), rest)
    }
}

/// Lists the first `limit` connections that are meant or, with `count_by`, counts them and lists the `limit` largest groups.
pub(crate) fn list_connections(
    control: &Control,
    limit: u32,
    filter: ConnectionFilter,
    count_by: Option<CountBy>,
    reply: Reply,
) {
    if let Some(vipa) = filter.vipa.filter(|vipa| control.routing.vipa_index(*vipa).is_none()) {
        return reply.end(no_vipa(vipa));
    }
    let vipas: BTreeMap<VipaId, (IpAddr, BTreeMap<IpAddr, NodeName>)> = (0..)
        .zip(&control.routing.vipas)
        .filter(|(_, routing)| filter.vipa.is_none_or(|vipa| vipa == routing.address))
        .map(|(index, routing)| (vipa_id(index), (routing.address, names(control, routing.address))))
        .collect();
    let (flows, targets) = (Arc::clone(&control.flows), control.routing.ways.addresses());
    let hold = control.reclaim.tasks.hold();
    let limit = limit as usize;
    tokio::task::spawn_blocking(move || {
        let _hold = hold;
        let (mut list, mut groups) = (Connections::default(), Groups::default());
        flows.export_where(&|vipa| vipas.contains_key(&vipa), &mut |key, way, state| {
            let stage = stage(state);
            let target = targets.get(usize::from(way.0)).copied().flatten();
            let (Some(target), Some((vipa, names))) = (target, vipas.get(&key.vipa())) else { return };
            let connection = key.connection();
            if stage == Stage::Ended || !filter.admits(*vipa, &connection, target, stage) {
                return;
            }
            list.total += 1;
            match count_by {
                Some(by) => groups.add(Group::of(by, *vipa, &connection, target, stage)),
                None if list.shown.len() < limit => {
                    let node = names.get(&target).cloned();
                    list.shown.push(ConnectionRow { vipa: *vipa, connection, target, node, stage });
                }
                None => {}
            }
        });
        (list.counted, list.others) = groups.largest(limit);
        reply.end(Answer::Connections(list));
    });
}

/// The answer to who asks about a VIPA that is not there.
pub(crate) fn no_vipa(vipa: IpAddr) -> Answer {
    Answer::NotFound(format!("{vipa} is not a VIPA of this router; `vipactl status` lists them"))
}

pub(crate) fn stage(state: FlowState) -> Stage {
    match state {
        FlowState::Ended => Stage::Ended,
        FlowState::HalfOpen => Stage::HalfOpen,
        FlowState::Open => Stage::Open,
        FlowState::Confirmed | FlowState::Reopened => Stage::Confirmed,
        FlowState::Closing => Stage::Closing,
        FlowState::Udp => Stage::Udp,
    }
}

pub(crate) fn names(control: &Control, vipa: IpAddr) -> BTreeMap<IpAddr, NodeName> {
    let targets = control.cluster.vipa(vipa).map(|vipa| vipa.targets).unwrap_or_default();
    targets.into_iter().map(|target| (target.address, target.node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_largest_groups_are_listed_and_the_rest_is_summed() {
        let mut groups = Groups::default();
        for (last, count) in [(1, 2), (2, 5), (3, 1), (4, 5)] {
            (0..count).for_each(|_| groups.add(Group::Address(address(last))));
        }
        let (rows, others) = groups.largest(2);
        let row = |last, connections| CountedConnections { name: address(last).to_string(), connections };
        assert_eq!((rows, others), (vec![row(2, 5), row(4, 5)], 3));
    }

    #[test]
    fn no_more_groups_are_told_apart_than_there_is_room_for() {
        let mut groups = Groups::default();
        for number in 0..MAX_COUNTED as u32 + 7 {
            groups.add(Group::Address(IpAddr::V4(number.into())));
        }
        groups.add(Group::Address(IpAddr::V4(0.into())));
        let (rows, others) = groups.largest(1);
        assert_eq!(rows[0].connections, 2);
        assert_eq!(others, MAX_COUNTED as u64 + 6);
    }

    #[test]
    fn connections_are_counted_by_what_is_asked() {
        let connection = Connection { protocol: Protocol::Tcp, client: "203.0.113.4:7".parse().unwrap(), port: 80 };
        let name = |by| Group::of(by, address(10), &connection, address(31), Stage::HalfOpen).name();
        let names = CountBy::ALL.map(name);
        assert_eq!(names, ["192.0.2.31", "half-open", "203.0.113.4", "192.0.2.10:80/tcp"]);
    }
}
