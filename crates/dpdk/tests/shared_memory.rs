//! Two processes with one link between them (memif), and hugepages. Needs root.

mod bench;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::{alone, device, frame, open, prefix, receive, start};
use vipa_dpdk::{Burst, Eal, EalMemory, EalOptions, Pool, PoolOptions};
use vipa_packet::PacketBuf;

#[test]
fn memif_carries_frames_between_two_processes() {
    let name = "memif_carries_frames_between_two_processes";
    let role = |role: &str| format!("net_memif0,role={role},id=0,socket-abstract=no,socket=");
    if let Ok(socket) = std::env::var("VIPA_MEMIF_SOCKET") {
        let memif = device(&format!("{}{socket}", role("client")));
        let (_eal, pool) = start(&[&memif], 8191);
        let mut port = open(&memif, &pool);
        // Sends back all it gets until it gets a frame with the number 99.
        let end = Instant::now() + Duration::from_secs(20);
        let mut burst = Burst::new();
        loop {
            port.rx[0].burst(&mut burst);
            let last = burst.iter().any(|packet| packet.bytes()[17] == 99);
            while !burst.is_empty() {
                port.tx[0].burst(&mut burst);
            }
            if last || Instant::now() > end {
                // The other side still reads from this memory.
                std::thread::sleep(Duration::from_millis(500));
                return;
            }
        }
    }
    alone(name, || {
        let socket = std::env::temp_dir().join(format!("{}.sock", prefix())).display().to_string();
        let memif = device(&format!("net_memif0,role=server,id=0,socket-abstract=no,socket={socket}"));
        let (_eal, pool) = start(&[&memif], 8191);
        let mut port = open(&memif, &pool);
        let mut other = bench::child("memif_carries_frames_between_two_processes", &[]);
        let mut other = other.env("VIPA_MEMIF_SOCKET", &socket).stdout(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        // The link is up before the other side has first polled, and until then its ring takes nothing.
        while !port.tx[0].compose(&frame(0, 200)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(receive(&mut port.rx[0], 1), [frame(0, 200)]);
        for number in 1..100 {
            assert!(port.tx[0].compose(&frame(number, 200)), "frame {number}");
            assert_eq!(receive(&mut port.rx[0], 1), [frame(number, 200)]);
        }
        assert!(other.wait().unwrap().success());
        drop(port);
        assert_eq!(pool.available(), 8191);
        // The driver removes its socket itself in some releases.
        let _ = std::fs::remove_file(socket);
    });
}

#[test]
fn a_killed_process_leaves_no_hugepage_behind() {
    let name = "a_killed_process_leaves_no_hugepage_behind";
    if std::env::var("VIPA_DPDK_TEST").is_ok() {
        let options = EalOptions::new(&prefix(), EalMemory::Hugepages { megabytes: 64 }, &[]);
        let eal = Eal::init(&options).unwrap();
        let pool = Pool::new(&eal, &PoolOptions::new("test", 8191)).unwrap();
        println!("ready {}", pool.available());
        std::thread::sleep(Duration::from_secs(30));
        return;
    }
    let reserved = Reserved::new();
    if EalMemory::hugepages_free_mb() < 64 {
        eprintln!("skipped: this machine gives no hugepages");
        return;
    }
    let free = EalMemory::hugepages_free_mb();
    let mut child = bench::child(name, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while EalMemory::hugepages_free_mb() > free - 64 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(EalMemory::hugepages_free_mb() <= free - 64, "the child takes hugepages");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(EalMemory::hugepages_free_mb(), free);
    drop(reserved);
}

/// Hugepages reserved for a test, as many as there were before when dropped.
struct Reserved(Option<String>);

impl Reserved {
    const PAGES: &str = "/proc/sys/vm/nr_hugepages";

    fn new() -> Self {
        if EalMemory::hugepages_free_mb() >= 64 {
            return Self(None);
        }
        let before = std::fs::read_to_string(Self::PAGES).unwrap_or_default();
        let more = before.trim().parse::<u32>().unwrap_or(0) + 64;
        let script = format!(
            "echo {more} > {} && (grep -q hugetlbfs /proc/mounts || \
             {{ mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages; }})",
            Self::PAGES
        );
        // Refused where this is not root: the test says that it is skipped.
        let _ = Command::new("sh").args(["-c", &script]).status();
        Self(Some(before))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // As above.
            let _ = std::fs::write(Self::PAGES, before);
        }
    }
}
