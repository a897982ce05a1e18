//! What this crate costs a packet: one core moves bursts from one port to another and looks at each frame's first byte.
//! `cargo run --release -p vipa-dpdk --example forward_rate [DEVICE]`; compare with dpdk-testpmd on the same device.

use std::hint::black_box;
use std::time::Instant;

use vipa_dpdk::{Burst, Device, Eal, EalOptions, Error, Memory, Pool, PoolOptions, Port, PortOptions, free_all};
use vipa_packet::PacketBuf;

const BURSTS: u64 = 3_000_000;

fn main() -> Result<(), Error> {
    let from: Device = std::env::args().nth(1).as_deref().unwrap_or("net_null0").parse()?;
    let to: Device = "net_null9".parse()?;
    let prefix = format!("vipa-rate-{}", std::process::id());
    let eal = Eal::init(&EalOptions::new(&prefix, Memory::Auto { megabytes: 256 }, &[from.clone(), to.clone()]))?;
    let _joined = eal.join_thread();
    let pool = Pool::new(&eal, &PoolOptions::new("rate", 16_383))?;
    let mut source = Port::open(&PortOptions::new(&from, 1, 1), &pool)?;
    let mut sink = Port::open(&PortOptions::new(&to, 1, 1), &pool)?;
    let mut burst = Burst::new();
    let (start, mut packets) = (Instant::now(), 0);
    for _ in 0..BURSTS {
        packets += source.rx[0].burst(&mut burst);
        for packet in &burst {
            black_box(packet.bytes().first());
        }
        sink.tx[0].burst(&mut burst);
        free_all(&mut burst);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{}, {from}: {:.1} million packets a second", vipa_dpdk::version(), packets as f64 / seconds / 1e6);
    Ok(())
}
