//! The connection table: which target each connection belongs to.
//!
//! Fixed in size, allocated once, shared by every worker and the control thread; nobody ever waits for anybody.
//! [`FlowTable`] tells the whole story; `word` and `bucket` are its memory layout, `place` is how a connection gets a
//! place in it, `rules` says what packets and reports make of an entry, `walk` is ageing and export.

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
pub use tick::{AgeLimits, HEARD_EVERY, LONGEST_AGE, Tick};
pub use walk::{Aged, Cursor};
pub use word::{FlowState, MAX_TARGETS};

#[cfg(all(test, not(loom)))]
mod tests;
