//! P6's subject: a SYN flood beside established connections, through a NIC's ring of ordinary size. What the worker does
//! not fetch in time is lost there, whatever it is.

use std::{cell::Cell, rc::Rc, time::Instant};

use anyhow::Context;
use arrayvec::ArrayVec;
use vipa_dataplane::{BURST, Limits, Rx, RxPort, Tx, Worker};
use vipa_dpdk::Mbuf;
use vipa_flow::FlowState;
use vipa_handoff::{Count, Fate, Reason};
use vipa_model::Moment;
use vipa_packet::{PacketBuf, TcpFlags};

use super::{DESCRIPTORS, Job, Ports, join, open_door};
use crate::{
    ports::{Receive, Transmit, below, set_client},
    world,
};

/// Packets a second offered: ten SYNs for each packet of an established connection.
const OFFERED: u64 = 11_000_000;
const SYNS_FOR_EACH: u64 = 10;
const SECONDS: u64 = 4;
/// Clients that send SYNs, after the established ones.
const ATTACKERS: u64 = 1 << 27;
/// Where a frame has its TCP flags.
const FLAGS: usize = 47;

/// What both ends of the worker saw of the established connections.
#[derive(Clone, Default)]
struct Seen(Rc<(Cell<u64>, Cell<u64>)>);

struct Nic {
    packets: Receive,
    start: Instant,
    /// Packets that have arrived, lost or fetched.
    arrived: u64,
    lost: u64,
    established: u64,
    random: u64,
    seen: Seen,
}

impl Rx for Nic {
    type Buf = Mbuf;

    fn burst(&mut self, packets: &mut ArrayVec<Mbuf, BURST>) {
        let due = self.start.elapsed().as_nanos() as u64 * (OFFERED / 1000) / 1_000_000;
        let waiting = due - self.arrived;
        let overflow = waiting.saturating_sub(u64::from(DESCRIPTORS));
        self.arrived += overflow;
        self.lost += overflow;
        if waiting < BURST as u64 {
            return;
        }
        self.packets.burst(packets);
        for packet in packets {
            let established = self.arrived.is_multiple_of(SYNS_FOR_EACH + 1);
            self.arrived += 1;
            let client = if established {
                packet.bytes_mut()[FLAGS] = TcpFlags::ACK.0;
                self.seen.0.0.set(self.seen.0.0.get() + 1);
                below(&mut self.random, self.established)
            } else {
                self.established + below(&mut self.random, ATTACKERS)
            };
            set_client(packet, client);
        }
    }
}

struct Counting {
    queue: Transmit,
    seen: Seen,
}

impl Tx for Counting {
    type Buf = Mbuf;

    fn burst(&mut self, packets: &mut ArrayVec<Mbuf, BURST>) {
        let established = packets.iter().filter(|packet| packet.bytes()[FLAGS] == TcpFlags::ACK.0).count();
        self.seen.0.1.set(self.seen.0.1.get() + established as u64);
        self.queue.burst(packets);
    }

    fn compose(&mut self, frame: &[u8]) -> bool {
        self.queue.compose(frame)
    }
}

/// Prints, a number a line: the share of established packets that was forwarded, how many of their connections are left
/// of how many, SYNs fetched a second, and packets lost in the ring.
pub(super) fn measure(job: &Job) -> anyhow::Result<()> {
    let flows = job.world.flows(job.capacity, job.clients)?;
    let Ports { eal, _ports, mut workers } = Ports::open(job)?;
    let (rx_ports, outlets) = workers.pop().context("a worker needs a core")?;
    let (control, mut channels) = open_door(job, 1)?;
    let _joined = join(&eal, job.cores[0])?;
    let seen = Seen::default();
    let (start, established) = (Instant::now(), job.clients);
    let nic = |rx_port: RxPort<Receive>| {
        let RxPort { port, rx: packets } = rx_port;
        let seen = seen.clone();
        RxPort { port, rx: Nic { packets, start, arrived: 0, lost: 0, established, random: 1, seen } }
    };
    // The other port is the way out, and nothing comes in there.
    let rx_ports: Vec<_> = rx_ports.into_iter().take(1).map(nic).collect();
    let outlets = outlets.into_iter().map(|queue| Counting { queue, seen: seen.clone() }).collect();
    let channel = channels.pop().context("a worker needs a channel")?;
    let mut worker = Worker::new(channel, flows.clone(), rx_ports, outlets, Limits::default());
    while start.elapsed().as_secs() < SECONDS {
        worker.turn(|| Moment(1_000_000_000 + start.elapsed().as_nanos() as u64));
    }
    let nic = worker.rx(0).context("a worker has an rx_port")?;
    let offered = nic.arrived / (SYNS_FOR_EACH + 1);
    let (fetched, forwarded) = (seen.0.0.get(), seen.0.1.get());
    let confirmed = |n: &u64| flows.ipv4.lookup(&world::key(*n)).is_some_and(|hit| hit.state == FlowState::Confirmed);
    let left = (0..established).filter(confirmed).count();
    let totals = control.totals();
    let syns = totals.count(Count::Received) - fetched;
    println!("{}\n{left}\n{established}", forwarded as f64 / offered as f64);
    println!("{}\n{}", syns as f64 / SECONDS as f64, nic.lost as f64 / nic.arrived as f64);
    eprintln!(
        "opened {}, evicted {}, unrecorded {}, full {}",
        totals.count(Count::FlowOpened),
        flows.evictions(),
        totals.count(Count::FlowUnrecorded),
        totals.fate(Fate::Drop(Reason::TableFull)),
    );
    Ok(())
}
