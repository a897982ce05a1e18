//! The connection table: which target each connection belongs to.
//!
//! The table has a fixed size, is allocated once, and is shared by every worker and the control thread. No thread ever
//! waits for another one.
//!
//! ```text
//!  worker 0 ──┐ lookup, admit,   ┌─────────── FlowTable ───────────┐  confirm, end, inherit,
//!  worker 1 ──┼─ touch, age ────►│ bucket 0 │ bucket 1 │ bucket 2 …│◄─ count, walk, export ─── control
//!  …        ──┘                  └─────────────────────────────────┘
//!                                  │ four entries; each has a key (addresses and ports)
//!                                  │ and a word (state, target, VIPA, last-seen tick)
//! ```
//! [`FlowTable`] is the interface. `word` and `bucket` are the memory layout, `place` inserts connections, `rules`
//! states what packets and reports make of an entry, `walk` is ageing and export.
//!
//! ```
//! use vipa_flow::{Admitted, Capacity, FlowState, FlowTable, HashSeed, Key4, Tick};
//! use vipa_model::{Protocol, TargetId, VipaId};
//!
//! let table = FlowTable::<Key4>::new(Capacity::connections(1_000), HashSeed::random()).unwrap();
//! let key = Key4 {
//!     client: u32::from(std::net::Ipv4Addr::new(203, 0, 113, 4)),
//!     client_port: 40_000,
//!     vipa_port: 443,
//!     vipa: VipaId(0),
//!     protocol: Protocol::Tcp,
//! };
//! let now = Tick(0);
//! assert_eq!(table.admit(&key, TargetId(7), FlowState::HalfOpen, now), Admitted::Opened);
//! let hit = table.lookup(&key).unwrap();
//! assert_eq!((hit.target, hit.state), (TargetId(7), FlowState::HalfOpen));
//! table.touch(&hit, hit.state.after_segment(false, true), now);
//! assert_eq!(table.count().open, 1);
//! ```

mod atomics;
mod blocks;
mod bucket;
mod count;
mod key;
#[cfg(not(loom))]
mod mapping;
mod memory;
mod place;
mod rules;
mod table;
mod target_set;
mod tick;
pub mod vectors;
mod walk;
mod word;

pub use count::Counts;
pub use key::{HashSeed, Key, Key4, Key6, MAX_VIPAS, PackedKey};
pub use memory::{Pages, TableError};
pub use table::{Admitted, BATCH, Capacity, Confirmed, FlowTable, HashedKey, Hit, ProbeHit, SlotRef};
pub use tick::{AgeLimits, LONGEST_AGE, REFRESH_INTERVAL, Tick};
pub use walk::{Aged, Cursor};
pub use word::{FlowState, MAX_TARGETS};

#[cfg(all(test, not(loom)))]
mod tests;
