//! P9: one packet at a time goes through a pair of memif ports to a spinning worker and comes back. All of the round trip
//! counts, both crossings of shared memory and the prober's own share included; the same through testpmd is beside it.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::forwarding::job;
use crate::{
    contender::Contender,
    figure::{Case, Owed, median},
    machine::Machine,
    subject::{Job, Task},
    world::{Family, ForwardingKind, World},
};

const ROUNDS: usize = 9;
const PROBES: usize = 20_000;
const OWED_MEDIAN_US: f64 = 3.0;
const OWED_TAIL_US: f64 = 20.0;
const CONNECTING: Duration = Duration::from_secs(10);

pub(crate) fn measure(machine: &Machine) -> anyhow::Result<Vec<Case>> {
    anyhow::ensure!(machine.measured != machine.other, "this machine has one core, and a prober needs another");
    let world = World { family: Family::Ipv4, way: ForwardingKind::Direct };
    let memif = |number: usize, peer: usize, role: &str| {
        let socket = machine.scratch.join(format!("memif{peer}.sock"));
        format!("net_memif{number},role={role},id=0,socket-abstract=no,socket={}", socket.display())
    };
    let base = job(machine, world, &[]);
    let prober = [memif(0, 0, "server"), memif(1, 1, "server")].to_vec();
    let prober = Job { cores: vec![machine.other.id], devices: prober, task: Task::Probe, ..base.clone() };
    let ours = Job { devices: vec![memif(0, 1, "client")], ..base };
    let mut prober = Contender::ours(machine, &prober)?;
    let peers = [Contender::testpmd(machine, &[memif(0, 0, "client")])?, Contender::ours(machine, &ours)?];
    let deadline = Instant::now() + CONNECTING;
    while ask(&mut prober, "up")? != "true" {
        anyhow::ensure!(Instant::now() < deadline, "the memif ports do not connect");
        thread::sleep(Duration::from_millis(50));
    }
    for peer in &peers {
        peer.pause()?;
    }
    let mut times = [(); 2].map(|()| (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for (number, peer) in peers.iter().enumerate() {
            peer.resume()?;
            let answer = ask(&mut prober, &format!("{number} {PROBES}"))?;
            peer.pause()?;
            let numbers = answer.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
            let [middle, tail, _] = numbers[..] else { anyhow::bail!("three numbers expected: {answer}") };
            times[number].0.push(middle);
            times[number].1.push(tail);
        }
    }
    let [reference, ours] = times;
    let case = |name: &str, ours: &[f64], reference: &[f64], owed| {
        Case::new(name, median(ours), "µs", Owed::AtMost(owed)).beside("reference_us", median(reference))
    };
    Ok(vec![
        case("round trip over memif, median", &ours.0, &reference.0, OWED_MEDIAN_US),
        case("round trip over memif, 99.9 %", &ours.1, &reference.1, OWED_TAIL_US),
    ])
}

fn ask(prober: &mut Contender, question: &str) -> anyhow::Result<String> {
    prober.say(question)?;
    prober.read_until(|_| true)
}
