//! The table's speed and loss on this machine: `cargo run --release -p vipa-flow --example rates [connections…]`.
//!
//! Rates are of one thread's processor time, so that a busy machine spoils them less. Lookups are batches of 32 random
//! known connections, the packets of an established load; inserts are what a worker does with a burst of 32 SYNs.

#[cfg(not(loom))]
fn main() {
    let mut sizes: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000_000, 10_000_000];
    }
    for size in sizes {
        rates::measure(size);
    }
}

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
mod rates {
    use std::{
        hint::black_box,
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::{Duration, Instant},
    };

    use vipa_flow::{
        Admitted, AgeLimits, BATCH, Capacity, Confirmed, Cursor, FlowState, FlowTable, HashSeed, Key4, Tick,
    };
    use vipa_model::{Protocol, TargetId, VipaId};

    const NOW: Tick = Tick(1_000);

    /// The `n`-th connection: clients as they come, not in any order that suits the table.
    fn key(n: usize) -> Key4 {
        let n = n as u64;
        let scattered = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
        Key4 {
            client: scattered,
            client_port: 1_024 + (n >> 32) as u16 + (n % 50_000) as u16,
            vipa_port: 80,
            vipa: VipaId(1),
            protocol: Protocol::Tcp,
        }
    }

    fn table(size: usize) -> FlowTable {
        FlowTable::new(Capacity::connections(size), HashSeed::random()).expect("memory for the table")
    }

    pub(super) fn measure(size: usize) {
        let filled = Instant::now();
        let fresh = table(size);
        println!(
            "{size} connections: {} MB of {:?} pages, ready in {:.0} ms, {:.1} bytes a connection",
            fresh.bytes() >> 20,
            fresh.pages(),
            filled.elapsed().as_secs_f64() * 1e3,
            fresh.bytes() as f64 / size as f64,
        );
        let lost = insert(&fresh, size);
        lookups(&fresh, size);
        println!("  lost at three quarters full: {lost} ({:.4} %)", lost as f64 * 100.0 / size as f64);
        ageing(&fresh);
        drop(fresh);
        confirm(&table(size), size);
    }

    fn insert(table: &FlowTable, size: usize) -> usize {
        // Half of the slots are two thirds of the capacity.
        let (half, quarter) = (table.slots() / 2, table.slots() / 20);
        let mut lost = 0;
        let mut add = |from: usize, to: usize| {
            let keys: Vec<Key4> = (from..to).map(key).collect();
            let mut hits = [None; BATCH];
            let start = Cpu::now();
            for (n, burst) in keys.chunks(BATCH).enumerate() {
                table.lookup_batch(burst, &mut hits[..burst.len()]);
                for key in burst {
                    let admitted = table.admit(key, TargetId((n % 64) as u16), FlowState::Open, NOW);
                    lost += usize::from(admitted != Admitted::Opened);
                }
            }
            (to - from, start.elapsed())
        };
        report("inserts from empty to half full", add(0, half - quarter));
        report("inserts at half full", add(half - quarter, half + quarter));
        report("inserts up to three quarters full", add(half + quarter, size));
        lost
    }

    fn lookups(table: &FlowTable, size: usize) {
        report("lookups in batches", lookup_batches(table, size));
        let stop = &AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut n = size;
                while !stop.load(Ordering::Relaxed) {
                    table.admit(&key(n), TargetId(1), FlowState::HalfOpen, NOW);
                    table.remove(&key(n - size / 100), None);
                    n += 1;
                }
            });
            report("lookups in batches, another core writing", lookup_batches(table, size));
            stop.store(true, Ordering::Relaxed);
        });
        let (mut random, count) = (Random(7), 5_000_000);
        let start = Cpu::now();
        for _ in 0..count {
            black_box(table.lookup(&key(random.below(size))));
        }
        report("lookups one by one", (count, start.elapsed()));
        let start = Cpu::now();
        for _ in 0..count {
            let hit = table.lookup(&key(random.below(size)));
            if let Some(hit) = hit {
                table.touch(&hit, FlowState::Open, Tick(NOW.0 + 1));
            }
        }
        report("lookups one by one, touched in a new tick", (count, start.elapsed()));
    }

    fn lookup_batches(table: &FlowTable, size: usize) -> (usize, Duration) {
        const BATCHES: usize = 300_000;
        const PREPARED: usize = 1 << 17;
        let mut random = Random(42);
        // Beforehand, so that making keys is not measured; as many as fit the second-level cache badly, as packets do.
        let keys: Vec<Key4> = (0..PREPARED * BATCH / 8).map(|_| key(random.below(size))).collect();
        let mut hits = [None; BATCH];
        let (mut found, start) = (0, Cpu::now());
        for keys in keys.chunks_exact(BATCH).cycle().take(BATCHES) {
            table.lookup_batch(keys, &mut hits);
            found += hits.iter().flatten().count();
        }
        let elapsed = start.elapsed();
        assert!(found * 1_000 >= BATCHES * BATCH * 990, "{found} found");
        (BATCHES * BATCH, elapsed)
    }

    fn confirm(table: &FlowTable, size: usize) {
        const AHEAD: usize = 8;
        let keys: Vec<Key4> = (0..size).map(key).collect();
        let bulk = |what: &str, expected: Confirmed| {
            let (mut others, start) = (0, Cpu::now());
            for (n, key) in keys.iter().enumerate() {
                if let Some(later) = keys.get(n + AHEAD) {
                    table.prefetch(later);
                }
                let confirmed = table.confirm(key, TargetId((n % 64) as u16), FlowState::Confirmed, NOW);
                others += usize::from(confirmed != expected);
            }
            report(what, (size, start.elapsed()));
            assert!(others < size / 1_000, "{others} others");
        };
        bulk("reports of unknown connections, to three quarters full", Confirmed::New);
        bulk("reports of known connections", Confirmed::Known);
    }

    fn ageing(table: &FlowTable) {
        let (mut cursor, start) = (Cursor::default(), Cpu::now());
        while !table.age(&mut cursor, 64, NOW, &AgeLimits::default()).finished {}
        report("slots aged", (table.slots(), start.elapsed()));
        let (mut named, start) = (0, Cpu::now());
        table.export(VipaId(1), &mut |key, _, _| named += usize::from(black_box(key).vipa_port == 80));
        report("connections exported", (named, start.elapsed()));
    }

    fn report(what: &str, (count, time): (usize, Duration)) {
        let seconds = time.as_secs_f64();
        println!("  {:6.1} M/s {:6.1} ns  {what}", count as f64 / seconds / 1e6, seconds * 1e9 / count as f64);
    }

    /// A reading of this thread's processor time.
    struct Cpu(Duration);

    impl Cpu {
        fn now() -> Self {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: writes one timespec, to which `time` is an exclusive reference.
            let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
            assert_eq!(failed, 0, "Linux has a clock of each thread's processor time");
            Self(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
        }

        fn elapsed(&self) -> Duration {
            Self::now().0 - self.0
        }
    }

    /// xorshift64 (Marsaglia 2003).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }
}
