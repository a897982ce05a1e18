//! P9's other end: sends one packet at a time to one of several peers and waits for it.

use std::{
    io::{BufRead, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use vipa_dpdk::{Burst, Device, EthPort, OpenPort, Pool, PoolOptions, PortOptions, free_all};
use vipa_packet::{PacketBuf, TcpFlags};

use super::{BUFFERS, Job, join};

/// A packet that takes longer is lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// So long may a peer take to poll.
const WAKING: Duration = Duration::from_secs(1);
const WARM_UP: usize = 1_000;

/// Answers `up` with whether all peers are there, and `PEER COUNT` with the median, the 99.9th percentile and the longest of
/// `COUNT` round trips to that peer, in microseconds.
pub(super) fn serve(job: &Job) -> anyhow::Result<()> {
    let devices = job.devices.iter().map(|device| Ok(device.parse::<Device>()?)).collect::<anyhow::Result<Vec<_>>>()?;
    let eal = job.start_dpdk(&devices)?;
    let pool = Pool::new(&eal, &PoolOptions::new("probe", BUFFERS))?;
    let open = |device: &Device| Ok(EthPort::open(&PortOptions::new(device, 1, 1), &pool)?);
    let mut peers = devices.iter().map(open).collect::<anyhow::Result<Vec<OpenPort>>>()?;
    let _joined = join(&eal, job.cores[0])?;
    let frame = job.world.frame(0, TcpFlags::ACK);
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.split_once(' ') {
            None => peers.iter().all(|peer| peer.port.link().is_some_and(|link| link.up)).to_string(),
            Some((peer, count)) => {
                let peer = peers.get_mut(peer.parse::<usize>()?).context("no such peer")?;
                round_trips(peer, &pool, frame.bytes(), count.parse()?)?
            }
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

/// Says when. A memif port takes nothing before its peer has first polled, which may be a while after the link is up.
fn send(peer: &mut OpenPort, burst: &mut Burst) -> anyhow::Result<Instant> {
    let begun = Instant::now();
    loop {
        let sent = Instant::now();
        peer.tx[0].burst(burst);
        if burst.is_empty() {
            return Ok(sent);
        }
        ensure!(begun.elapsed() < WAKING, "the peer's ring is full");
    }
}

fn round_trips(peer: &mut OpenPort, pool: &Pool, frame: &[u8], count: usize) -> anyhow::Result<String> {
    let mut times = Vec::with_capacity(count);
    let mut burst = Burst::new();
    for n in 0..count + WARM_UP {
        burst.push(pool.compose(frame).context("the pool is empty")?);
        let sent = send(peer, &mut burst)?;
        while peer.rx[0].burst(&mut burst) == 0 {
            ensure!(sent.elapsed() < PATIENCE, "packet {n} did not come back");
        }
        let time = sent.elapsed();
        free_all(&mut burst);
        if n >= WARM_UP {
            times.push(time.as_nanos() as f64 / 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok(format!("{} {} {}", at(0.5), at(0.999), at(1.0)))
}
