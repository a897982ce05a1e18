//! P1, P2, P3 and P10: a worker beside `dpdk-testpmd --forward-mode=macswap`, which reads and rewrites each packet and
//! decides nothing: the limit. Both receive from a `net_pcap` port that replays 4,096 packets for ever and send to a
//! `net_null` port, on the same core in turn.
//!
//! For more than 4,096 connections the worker's packets are drawn in its own process. The rates and ratios include that
//! cost; `draw_ns` says what it is, measured without a worker.

use crate::{
    contender::{Contender, duel},
    figure::{Case, Owed, median},
    machine::Machine,
    ports::Draw,
    subject::{Job, Task},
    world::{Family, ForwardingKind, World},
};
use vipa_packet::TcpFlags;

const ROUNDS: usize = 11;
/// Packets of a capture; each is another client's.
pub(super) const CAPTURED: u64 = 4096;
/// `[table] connections` unless configured: a table does not shrink because few connections are in it.
pub(super) const ORDINARY_TABLE: usize = 1_000_000;

const IPV4_DIRECT: World = World { family: Family::Ipv4, way: ForwardingKind::Direct };

pub(crate) fn flows(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (clients, name, owed) in [(CAPTURED, "4 k", 0.75), (1_000_000, "1 M", 0.60), (10_000_000, "10 M", 0.50)] {
        let drawn = clients > CAPTURED;
        let draw = if drawn { Draw::Drawn { clients } } else { Draw::Replayed };
        let devices = devices(machine, IPV4_DIRECT, 1)?;
        let capacity = ORDINARY_TABLE.max(clients as usize);
        let ours = Job { capacity, clients, draw, ..job(machine, IPV4_DIRECT, &devices) };
        let bare = |draw| Job { task: Task::Bare, capacity: 1024, clients: 0, draw, ..ours.clone() };
        let mut contenders = vec![Contender::testpmd(machine, &devices)?, Contender::ours(machine, &ours)?];
        if drawn {
            contenders.push(Contender::ours(machine, &bare(draw))?);
            contenders.push(Contender::ours(machine, &bare(Draw::Replayed))?);
        }
        let rates = duel(&mut contenders, ROUNDS)?;
        let mut case = against(machine, format!("direct, {name} flows"), owed, &rates[0], &rates[1]);
        case = case.beside("flows", clients as f64);
        if let [_, _, with, without] = &rates[..] {
            case = case.beside("draw_ns", 1e3 / median(with) - 1e3 / median(without));
        }
        cases.push(case);
    }
    Ok(cases)
}

pub(crate) fn paths(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    let ways = [
        (ForwardingKind::Ipip, "ipip", 0.65),
        (ForwardingKind::Gre, "gre", 0.60),
        (ForwardingKind::Gue, "gue", 0.60),
        (ForwardingKind::Nat, "nat", 0.50),
    ];
    let worlds = ways.map(|(way, name, owed)| (World { way, ..IPV4_DIRECT }, name, owed));
    side_by_side(machine, &worlds)
}

pub(crate) fn ipv6(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    let world = |way| World { family: Family::Ipv6, way };
    side_by_side(
        machine,
        &[(world(ForwardingKind::Direct), "IPv6 direct", 0.60), (world(ForwardingKind::Ipip), "IPv6 in IPv6", 0.60)],
    )
}

/// Several worlds of one family, at 4,096 connections, against one reference.
fn side_by_side(machine: &Machine, worlds: &[(World, &str, f64)]) -> anyhow::Result<Vec<Case>> {
    let devices = devices(machine, worlds[0].0, 1)?;
    let mut contenders = vec![Contender::testpmd(machine, &devices)?];
    for (world, ..) in worlds {
        contenders.push(Contender::ours(machine, &job(machine, *world, &devices))?);
    }
    let rates = duel(&mut contenders, ROUNDS)?;
    let case = |((_, name, owed), ours): (&(World, &str, f64), &Vec<f64>)| {
        against(machine, format!("{name}, 4 k flows"), *owed, &rates[0], ours)
    };
    Ok(worlds.iter().zip(&rates[1..]).map(case).collect())
}

/// Two workers with a queue and a core each, on one connection table, against one.
pub(crate) fn two_workers(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    anyhow::ensure!(machine.measured != machine.other, "this machine has one core");
    let one = job(machine, IPV4_DIRECT, &devices(machine, IPV4_DIRECT, 1)?);
    let two = Job {
        cores: vec![machine.measured.id, machine.other.id],
        ..job(machine, IPV4_DIRECT, &devices(machine, IPV4_DIRECT, 2)?)
    };
    let mut cases = Vec::new();
    for (clients, name) in [(CAPTURED, "4 k"), (1_000_000, "1 M")] {
        let draw = if clients > CAPTURED { Draw::Drawn { clients } } else { Draw::Replayed };
        let with = |job: &Job| Job { draw, clients, ..job.clone() };
        let mut contenders = vec![Contender::ours(machine, &with(&one))?, Contender::ours(machine, &with(&two))?];
        let rates = duel(&mut contenders, ROUNDS)?;
        let (one, two) = (median(&rates[0]), median(&rates[1]));
        let case =
            Case::new(format!("two workers, {name} flows"), ratio(&rates[0], &rates[1]), "ratio", Owed::AtLeast(1.9));
        cases.push(case.beside("one_mpps", one).beside("two_mpps", two));
    }
    Ok(cases)
}

fn against(machine: &Machine, name: String, owed: f64, reference: &[f64], ours: &[f64]) -> Case {
    Case::new(name, ratio(reference, ours), "ratio", Owed::AtLeast(owed))
        .beside("ours_mpps", median(ours))
        .beside("reference_mpps", median(reference))
        .beside("hugepages", f64::from(u8::from(machine.hugepages)))
}

/// The middle one of the rounds' ratios.
fn ratio(reference: &[f64], ours: &[f64]) -> f64 {
    median(&reference.iter().zip(ours).map(|(reference, ours)| ours / reference).collect::<Vec<_>>())
}

/// A port with the world's packets, from the same capture in each queue, and a port that takes everything.
pub(super) fn devices(machine: &Machine, world: World, queues: usize) -> anyhow::Result<Vec<String>> {
    capture(machine, world, queues, TcpFlags::ACK)
}

pub(super) fn capture(machine: &Machine, world: World, queues: usize, flags: TcpFlags) -> anyhow::Result<Vec<String>> {
    let path = machine.scratch.join(format!("{:?}-{:02x}.pcap", world.family, flags.0));
    world.write_capture(&path, CAPTURED, flags)?;
    let captures = format!(",rx_pcap={}", path.display()).repeat(queues);
    Ok(vec![format!("net_pcap0{captures},infinite_rx=1"), "net_null0,no-rx=1".to_owned()])
}

pub(super) fn job(machine: &Machine, world: World, devices: &[String]) -> Job {
    Job {
        world,
        cores: vec![machine.measured.id],
        devices: devices.to_vec(),
        capacity: ORDINARY_TABLE,
        clients: CAPTURED,
        draw: Draw::Replayed,
        hugepages: machine.hugepages,
        task: Task::Forward,
    }
}
