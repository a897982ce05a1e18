//! The table's memory: taken once at the start, zeroed, with every page present, so that no packet ever causes a page
//! fault.

#[cfg(not(loom))]
use std::ptr::NonNull;
use std::{io, ops::Deref};

#[cfg(not(loom))]
use crate::mapping::{HUGEPAGE, Mapping, PAGE};
use crate::{bucket::Bucket, key::sealed::Words};

/// Why a table cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("a connection table must hold at least one connection: raise [table] connections")]
    Empty,
    #[error(
        "a connection table of {connections} connections is beyond the limit of {limit}: lower [table] connections"
    )]
    TooLarge { connections: usize, limit: usize },
    #[error(
        "the connection table needs {wanted_mb} MB but only {available_mb} MB of memory are free: lower [table] \
         connections or add memory"
    )]
    DoesNotFit { wanted_mb: u64, available_mb: u64 },
    #[error(
        "the kernel refuses {wanted_mb} MB for the connection table: lower [table] connections or its memory limit"
    )]
    Refused { wanted_mb: u64, source: io::Error },
}

/// Kind of pages that the table's memory consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved hugepages, except for a rest smaller than one hugepage.
    Huge,
    /// Ordinary memory; the kernel is advised to use transparent hugepages.
    Transparent,
}

pub(crate) struct Memory<W: Words> {
    #[cfg(not(loom))]
    buckets: NonNull<Bucket<W>>,
    #[cfg(not(loom))]
    count: usize,
    /// The whole hugepages, and the rest right behind them; kept here so that they are unmapped on drop.
    #[cfg(not(loom))]
    _mappings: [Mapping; 2],
    #[cfg(loom)]
    buckets: Box<[Bucket<W>]>,
    bytes: usize,
    pages: Pages,
}

#[cfg(not(loom))]
impl<W: Words> Memory<W> {
    /// Memory for `count` buckets.
    pub(crate) fn new(count: usize) -> Result<Self, TableError> {
        let bytes = (count * size_of::<Bucket<W>>()).next_multiple_of(PAGE);
        let wanted_mb = bytes as u64 >> 20;
        // Reserved hugepages are granted or refused at once: the kernel sets them aside for the whole mapping.
        if bytes >= HUGEPAGE
            && let Ok(memory) = Self::of(Pages::Huge, count, bytes)
        {
            return Ok(memory);
        }
        // The kernel promises ordinary memory that it does not have, and kills a process when it is used. So check
        // first.
        if let Some(available) = available_bytes()
            && bytes as u64 > available
        {
            return Err(TableError::DoesNotFit { wanted_mb, available_mb: available >> 20 });
        }
        Self::of(Pages::Transparent, count, bytes).map_err(|source| TableError::Refused { wanted_mb, source })
    }

    fn of(pages: Pages, count: usize, bytes: usize) -> io::Result<Self> {
        let (whole, rest) = Mapping::reserve(bytes)?.split_at(bytes - bytes % HUGEPAGE);
        let whole = match pages {
            Pages::Huge => whole.on_hugepages()?,
            Pages::Transparent => whole.on_ordinary_pages()?,
        };
        let rest = rest.on_ordinary_pages()?;
        let bytes = whole.bytes() + rest.bytes();
        Ok(Self { buckets: whole.start().cast(), count, _mappings: [whole, rest], bytes, pages })
    }
}

#[cfg(not(loom))]
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(not(loom))]
impl<W: Words> Deref for Memory<W> {
    type Target = [Bucket<W>];
    #[inline]
    fn deref(&self) -> &[Bucket<W>] {
        // SAFETY: the mappings, one right behind the other, hold `count` buckets, are aligned to pages and live as long
        // as `self`. All-zero bytes are a valid Bucket (atomics only). No `&mut` into them exists.
        unsafe { std::slice::from_raw_parts(self.buckets.as_ptr(), self.count) }
    }
}

// SAFETY: owns its mappings, and Bucket consists of atomics only.
#[cfg(not(loom))]
unsafe impl<W: Words> Send for Memory<W> {}
// SAFETY: as above; threads share `&[Bucket]`.
#[cfg(not(loom))]
unsafe impl<W: Words> Sync for Memory<W> {}

#[cfg(loom)]
impl<W: Words> Memory<W> {
    pub(crate) fn new(count: usize) -> Result<Self, TableError> {
        let buckets = (0..count).map(|_| Bucket::new()).collect();
        Ok(Self { buckets, bytes: count * size_of::<Bucket<W>>(), pages: Pages::Transparent })
    }
}

#[cfg(loom)]
impl<W: Words> Deref for Memory<W> {
    type Target = [Bucket<W>];
    fn deref(&self) -> &[Bucket<W>] {
        &self.buckets
    }
}

impl<W: Words> Memory<W> {
    /// The bucket at `fraction` / 2³² of the table, and its number.
    #[inline(always)]
    pub(crate) fn at(&self, fraction: u32) -> (usize, &Bucket<W>) {
        let number = ((u64::from(fraction) * self.len() as u64) >> 32) as usize;
        // SAFETY: for a fraction below 2³² the product is below len × 2³² (which 64 bits hold: bucket numbers have 32),
        // so the number is below len.
        let bucket = unsafe { self.get_unchecked(number) };
        (number, bucket)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }
}
