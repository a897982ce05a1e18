//! What a packet rule needs of a buffer, and the buffer on the heap that tests, fuzzers and the simulator use.

use std::fmt;

/// A frame with room before it. `vipa-dpdk` implements this for `Mbuf`, so every rule runs on both.
pub trait PacketBuf {
    /// The frame, from the first byte of its Ethernet header.
    fn bytes(&self) -> &[u8];

    fn bytes_mut(&mut self) -> &mut [u8];

    /// Bytes that [`prepend`](Self::prepend) can still add.
    fn headroom(&self) -> usize;

    /// Grows the frame by `n` bytes at its front and returns them (whatever they held before);
    /// `None`, and nothing changed, when there is not that much headroom.
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]>;

    /// Takes `n` bytes off the front; false, and nothing changed, when the frame is shorter.
    fn trim_front(&mut self, n: usize) -> bool;

    /// Cuts the frame to its first `len` bytes; false, and nothing changed, when it is shorter.
    fn truncate(&mut self, len: usize) -> bool;
}

/// Headroom of a new [`HeapPacket`], the same as DPDK's default (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: usize = 128;

/// A frame on the heap. Equal when the frames are; headroom is no part of the value.
#[derive(Clone)]
pub struct HeapPacket {
    room: Box<[u8]>,
    start: usize,
    end: usize,
}

impl HeapPacket {
    /// Becomes `frame` again with full headroom, without allocating; false, and nothing changed, when it has no room.
    pub fn refill(&mut self, frame: &[u8]) -> bool {
        let Some(place) = self.room.get_mut(HEADROOM..).and_then(|rest| rest.get_mut(..frame.len())) else {
            return false;
        };
        place.copy_from_slice(frame);
        (self.start, self.end) = (HEADROOM, HEADROOM + frame.len());
        true
    }
}

impl PacketBuf for HeapPacket {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.end]
    }

    #[inline]
    fn headroom(&self) -> usize {
        self.start
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(n)?;
        Some(&mut self.room[self.start..self.start + n])
    }

    #[inline]
    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.end - self.start;
        if fits {
            self.start += n;
        }
        fits
    }

    #[inline]
    fn truncate(&mut self, len: usize) -> bool {
        let fits = len <= self.end - self.start;
        if fits {
            self.end = self.start + len;
        }
        fits
    }
}

impl From<&[u8]> for HeapPacket {
    fn from(frame: &[u8]) -> Self {
        let mut room = vec![0; HEADROOM + frame.len()].into_boxed_slice();
        room[HEADROOM..].copy_from_slice(frame);
        Self { start: HEADROOM, end: room.len(), room }
    }
}

impl From<Vec<u8>> for HeapPacket {
    fn from(frame: Vec<u8>) -> Self {
        Self::from(frame.as_slice())
    }
}

impl<const N: usize> From<[u8; N]> for HeapPacket {
    fn from(frame: [u8; N]) -> Self {
        Self::from(frame.as_slice())
    }
}

impl AsRef<[u8]> for HeapPacket {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for HeapPacket {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for HeapPacket {}

/// What the parser makes of it, then the bytes in hexadecimal.
impl fmt::Debug for HeapPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::parse(self.bytes()) {
            Ok(parsed) => write!(f, "{:?} [", parsed.body)?,
            Err(malformed) => write!(f, "{malformed:?} [")?,
        }
        for byte in self.bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests;
