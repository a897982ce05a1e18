//! The table's memory: taken once at the start, zeroed, with every page present, so that no packet ever pays a page
//! fault.

#[cfg(not(loom))]
use std::ptr::NonNull;
use std::{io, ops::Deref};

use crate::{bucket::Bucket, key::sealed::Words};

/// Why there is no table.
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

/// What the table's memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// From the pool of reserved hugepages.
    Huge,
    /// Ordinary memory; the kernel was asked to use transparent hugepages.
    Transparent,
}

pub(crate) struct Memory<W: Words> {
    #[cfg(not(loom))]
    buckets: NonNull<Bucket<W>>,
    #[cfg(not(loom))]
    count: usize,
    #[cfg(loom)]
    buckets: Box<[Bucket<W>]>,
    bytes: usize,
    pages: Pages,
}

#[cfg(not(loom))]
const PAGE: usize = 4 << 10;
#[cfg(not(loom))]
const HUGEPAGE: usize = 2 << 20;

#[cfg(not(loom))]
impl<W: Words> Memory<W> {
    /// Room for `count` buckets, and for as many more as fill the last hugepage.
    pub(crate) fn new(count: usize) -> Result<Self, TableError> {
        let bytes = count * size_of::<Bucket<W>>();
        let is_large = bytes >= HUGEPAGE;
        let bytes = bytes.next_multiple_of(if is_large { HUGEPAGE } else { PAGE });
        let count = if is_large { bytes / size_of::<Bucket<W>>() } else { count };
        let wanted_mb = bytes as u64 >> 20;
        // Reserved hugepages are there or refused at once: the kernel sets them aside for the whole mapping.
        if is_large && let Ok(buckets) = map(bytes, libc::MAP_HUGETLB | libc::MAP_POPULATE) {
            return Ok(Self { buckets, count, bytes, pages: Pages::Huge });
        }
        // Ordinary memory the kernel promises without having it, and kills somebody when it is used: look first.
        if let Some(available) = available_bytes()
            && bytes as u64 > available
        {
            return Err(TableError::DoesNotFit { wanted_mb, available_mb: available >> 20 });
        }
        let buckets = map(bytes, 0).map_err(|source| TableError::Refused { wanted_mb, source })?;
        let memory = Self { buckets, count, bytes, pages: Pages::Transparent };
        memory.make_present();
        Ok(memory)
    }

    fn make_present(&self) {
        // SAFETY: advice on exactly the mapping that `self` owns; a kernel without transparent hugepages refuses it,
        // which changes nothing.
        unsafe { libc::madvise(self.buckets.as_ptr().cast(), self.bytes, libc::MADV_HUGEPAGE) };
        for offset in (0..self.bytes).step_by(PAGE) {
            // SAFETY: within the mapping, page-aligned.
            let page = unsafe { self.buckets.as_ptr().cast::<u8>().add(offset) };
            // SAFETY: the mapping is ours alone until new() returns, and holds zeros.
            unsafe { page.write_volatile(0) };
        }
    }
}

#[cfg(not(loom))]
fn map<W: Words>(bytes: usize, flags: libc::c_int) -> io::Result<NonNull<Bucket<W>>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at zero"))
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
        // SAFETY: the mapping holds `count` buckets, is aligned to pages, lives as long as `self`, and all-zero bytes
        // are a valid Bucket (atomics only); nobody has a `&mut` into it.
        unsafe { std::slice::from_raw_parts(self.buckets.as_ptr(), self.count) }
    }
}

#[cfg(not(loom))]
impl<W: Words> Drop for Memory<W> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that new() made; no reference into it outlives `self`.
        unsafe { libc::munmap(self.buckets.as_ptr().cast(), self.bytes) };
    }
}

// SAFETY: owns its mapping, and Bucket is atomics only.
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
    /// The bucket that lies `fraction` / 2³² of the way through, and its number.
    #[inline(always)]
    pub(crate) fn at(&self, fraction: u32) -> (usize, &Bucket<W>) {
        let number = ((u64::from(fraction) * self.len() as u64) >> 32) as usize;
        // SAFETY: of a fraction below 2³² the product is below len × 2³² (which 64 bits hold: bucket numbers have 32), so the
        // number is below len.
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
