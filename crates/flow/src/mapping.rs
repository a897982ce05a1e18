//! Address ranges of this process, and the pages behind them.

use std::{io, mem::ManuallyDrop, ptr, ptr::NonNull};

pub(crate) const PAGE: usize = 4 << 10;
pub(crate) const HUGEPAGE: usize = 2 << 20;

/// A range of addresses in whole pages that this value alone owns; unmapped when dropped.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Reserves addresses that begin at a multiple of [`HUGEPAGE`]. No memory is behind them yet: they must not be read
    /// or written.
    pub(crate) fn reserve(bytes: usize) -> io::Result<Self> {
        let all = Self::map(ptr::null_mut(), bytes + HUGEPAGE, libc::PROT_NONE, 0)?;
        let before = all.start.align_offset(HUGEPAGE);
        let (_, aligned) = all.split_at(before);
        Ok(aligned.split_at(bytes).0)
    }

    /// Splits into the first `at` bytes, whole pages, and the rest; either may be empty.
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        assert!(at <= self.bytes, "split at {at} of {}", self.bytes);
        let whole = ManuallyDrop::new(self);
        // SAFETY: within the mapping, or just behind it.
        let second = unsafe { whole.start.add(at) };
        (Self { start: whole.start, bytes: at }, Self { start: second, bytes: whole.bytes - at })
    }

    /// The same addresses, whole hugepages, backed by reserved hugepages: all present and zeroed.
    pub(crate) fn on_hugepages(self) -> io::Result<Self> {
        let Self { start, bytes } = self;
        // The reservation is unmapped first, not replaced. A kernel that finds too few hugepages may already have
        // removed the mapping that was to be replaced, and another thread may have been given its addresses. This way a
        // thread that maps the addresses in between keeps them.
        drop(self);
        let pages = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB | libc::MAP_POPULATE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let mapping = Self::map(start.as_ptr(), bytes, access, libc::MAP_FIXED_NOREPLACE | pages)?;
        // Before Linux 4.17 the kernel took the address only as a hint.
        if mapping.start == start { Ok(mapping) } else { Err(io::ErrorKind::AddrInUse.into()) }
    }

    /// The same addresses backed by ordinary memory, all present and zeroed; the kernel is advised to use transparent
    /// hugepages.
    pub(crate) fn on_ordinary_pages(self) -> io::Result<Self> {
        // SAFETY: changes exactly the pages of `self`, which hold nothing yet.
        if unsafe { libc::mprotect(self.start.as_ptr().cast(), self.bytes, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: advice on exactly the pages of `self`; a kernel without transparent hugepages refuses it, which
        // changes nothing.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, libc::MADV_HUGEPAGE) };
        for offset in (0..self.bytes).step_by(PAGE) {
            // SAFETY: within the mapping.
            let page = unsafe { self.start.add(offset) };
            // SAFETY: writable since mprotect(), owned by `self` alone, and already zero.
            unsafe { page.write_volatile(0) };
        }
        Ok(self)
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn map(address: *mut u8, bytes: usize, access: libc::c_int, flags: libc::c_int) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
        // SAFETY: a new anonymous mapping touches nothing that exists: without MAP_FIXED (MAP_FIXED_NOREPLACE is
        // another flag) the kernel replaces no mapping.
        let start = unsafe { libc::mmap(address.cast(), bytes, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: exactly the addresses that `self` owns; no reference into them outlives `self`. Hugepages are
            // unmapped whole: their mapping is never split.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }
}

#[cfg(test)]
mod tests;
