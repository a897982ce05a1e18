//! DPDK starts once in a process, so every test runs in a process of its own.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::process::Command;

use vipa_dpdk::{
    Burst, Device, Eal, EalMemory, EalOptions, EthPort, OpenPort, Pool, PoolOptions, PortOptions, RxQueue,
};
use vipa_packet::PacketBuf;

const CHILD: &str = "VIPA_DPDK_TEST";

/// Runs `body` in a new process of this test binary; `name` is the name of the calling test.
pub fn alone(name: &str, body: fn()) {
    if std::env::var(CHILD).as_deref() == Ok(name) {
        return body();
    }
    let output = child(name, &[]).output().expect("this test binary can be run again");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
}

/// This test binary, to run one test's body, by way of `wrapper` (such as `ip netns exec NAME`).
pub fn child(name: &str, wrapper: &[&str]) -> Command {
    let program = std::env::current_exe().expect("a test knows its program");
    let mut command = match wrapper {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, name);
    command
}

/// DPDK without hugepages, and a pool of `packets`.
pub fn start(devices: &[&Device], packets: u32) -> (Eal, Pool) {
    let devices: Vec<Device> = devices.iter().map(|device| (*device).clone()).collect();
    let options = EalOptions::new(&prefix(), EalMemory::NoHuge { megabytes: 64 }, &devices);
    let eal = Eal::init(&options).unwrap();
    let pool = Pool::new(&eal, &PoolOptions::new("test", packets)).unwrap();
    (eal, pool)
}

pub fn prefix() -> String {
    format!("vipa-test-{}", std::process::id())
}

pub fn device(text: &str) -> Device {
    text.parse().unwrap()
}

pub fn open(device: &Device, pool: &Pool) -> OpenPort {
    EthPort::open(&PortOptions::new(device, 1, 1), pool).unwrap()
}

/// A broadcast frame that nothing but these tests understands.
pub fn frame(number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.resize(length, number as u8);
    frame
}

/// Receives until `count` frames of these tests came or two seconds passed.
pub fn receive(rx: &mut RxQueue, count: usize) -> Vec<Vec<u8>> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
    let mut frames = Vec::new();
    let mut burst = Burst::new();
    while frames.len() < count && std::time::Instant::now() < end {
        rx.burst(&mut burst);
        let ours = |frame: &[u8]| frame.get(12..14) == Some(&[0x88, 0xb5]);
        frames.extend(burst.drain(..).map(|packet| packet.bytes().to_vec()).filter(|frame| ours(frame)));
    }
    frames
}

/// A capture file of Ethernet frames (pcap-savefile(5)).
pub fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1_u32] {
        file.extend_from_slice(&word.to_ne_bytes());
    }
    for frame in frames {
        let length = frame.len() as u32;
        for word in [0, 0, length, length] {
            file.extend_from_slice(&word.to_ne_bytes());
        }
        file.extend_from_slice(frame);
    }
    file
}
