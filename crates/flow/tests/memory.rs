//! Memory that a table takes from the machine, and returns.
#![cfg(not(loom))]

use std::fs;

use vipa_flow::{Capacity, Confirmed, FlowState, FlowTable, HashSeed, Key4, Pages, Tick};
use vipa_model::{Protocol, TargetId, VipaId};

/// Nearly seven hugepages: the rest beyond six whole ones is nearly one.
const CONNECTIONS: usize = 686_000;
const BYTES: usize = 14_635_008;
const WHOLE: usize = 6 << 21;
/// What this process otherwise allocates and frees meanwhile, and the kernel's counting in bulk.
const ASIDE: usize = 1 << 20;

#[test]
fn a_table_takes_what_it_needs_and_gives_it_back() {
    take_and_give_back();
}

#[test]
#[ignore = "asks for hugepages (root)"]
fn a_table_on_hugepages_takes_what_it_needs_and_gives_it_back() {
    const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    let read = |name| fs::read_to_string(format!("{PAGES}{name}")).unwrap().trim().parse::<usize>().unwrap();
    let (before, free) = (read("nr_hugepages"), read("free_hugepages"));
    fs::write(format!("{PAGES}nr_hugepages"), (before + 8).to_string()).unwrap();
    let pages = std::panic::catch_unwind(take_and_give_back);
    let left = read("free_hugepages");
    fs::write(format!("{PAGES}nr_hugepages"), before.to_string()).unwrap();
    assert_eq!((pages.unwrap(), left), (Pages::Huge, free + 8));
}

fn take_and_give_back() -> Pages {
    let (resident, hugepages) = taken();
    let table = FlowTable::<Key4>::new(Capacity::connections(CONNECTIONS), HashSeed::new([1, 2, 3, 4])).unwrap();
    assert_eq!((table.bytes(), table.slots()), (BYTES, CONNECTIONS.div_ceil(3) * 4));
    let pages = table.pages();
    let from_pool = if pages == Pages::Huge { WHOLE } else { 0 };
    let (more, more_huge) = taken();
    assert_eq!(more_huge - hugepages, from_pool);
    assert!((more - resident).abs_diff(BYTES - from_pool) < ASIDE, "{} bytes are present", more - resident);
    for n in 0..CONNECTIONS {
        assert_eq!(table.confirm(&key(n), TargetId((n % 64) as u16), FlowState::Confirmed, Tick(1)), Confirmed::New);
    }
    let found = |n| table.lookup(&key(n)).is_some_and(|hit| hit.target == TargetId((n % 64) as u16));
    assert!((0..CONNECTIONS).all(found), "also where one kind of page ends and the other begins");
    assert!(taken().0.abs_diff(more) < ASIDE, "no page was still to come");
    drop(table);
    let (left, left_huge) = taken();
    assert_eq!(left_huge, hugepages);
    assert!(left < resident + ASIDE, "{} bytes are left", left - resident);
    pages
}

/// This process's memory on ordinary pages and on hugepages, in bytes.
fn taken() -> (usize, usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    };
    (bytes("VmRSS:"), bytes("HugetlbPages:"))
}

fn key(n: usize) -> Key4 {
    let client = (n as u32).wrapping_mul(0x9e37_79b9);
    Key4 { client, client_port: 40_000, vipa_port: 80, vipa: VipaId(1), protocol: Protocol::Tcp }
}
