//! A transmit ring of PF_PACKET: the kernel sends frames from its pages and copies only their beginning into the linear part
//! of the buffer, as it does for DPDK's af_packet ports.

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsRawFd, OwnedFd},
    ptr, slice,
};

use nix::libc;

/// One block with one frame: a test sends one at a time.
const BLOCK: usize = 4096;
/// `struct tpacket2_hdr`; the frame, with its `struct virtio_net_hdr`, follows.
const HEADER: usize = 32;
/// `struct virtio_net_hdr`, whose third field says how much of the frame is copied.
const VIRTIO_HEADER: usize = 10;
const COPIED_LENGTH: usize = 2;
const STATUS_SEND: u32 = 1;
/// From linux/if_packet.h.
const PACKET_VERSION: libc::c_int = 10;
const PACKET_TX_RING: libc::c_int = 13;
const PACKET_VNET_HDR: libc::c_int = 15;
const TPACKET_V2: libc::c_int = 1;

/// A PF_PACKET socket with a ring mapped into this process.
pub(crate) struct Ring {
    socket: OwnedFd,
    memory: *mut libc::c_void,
    linear: u16,
}

impl Ring {
    /// Frames sent through `socket` have this many bytes in their linear part, 14 at least.
    pub(crate) fn new(socket: OwnedFd, linear: u16) -> Self {
        set(&socket, PACKET_VERSION, &TPACKET_V2);
        set(&socket, PACKET_VNET_HDR, &1_i32);
        // struct tpacket_req: block size, blocks, frame size, frames.
        set(&socket, PACKET_TX_RING, &[BLOCK as u32, 1, BLOCK as u32, 1]);
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, socket.as_raw_fd());
        // SAFETY: mmap(2) without a requested address touches no memory of ours; the length is the ring's.
        let memory = unsafe { libc::mmap(ptr::null_mut(), BLOCK, access, libc::MAP_SHARED, fd, 0) };
        assert_ne!(memory, libc::MAP_FAILED, "the ring is mapped: {}", io::Error::last_os_error());
        Self { socket, memory, linear }
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        // SAFETY: the mapping is this long, readable and writable, and lives as long as `self`; the kernel reads it only while
        // `send` runs, below.
        let ring = unsafe { slice::from_raw_parts_mut(self.memory.cast::<u8>(), BLOCK) };
        let virtio = &mut ring[HEADER..][..VIRTIO_HEADER];
        virtio.fill(0);
        virtio[COPIED_LENGTH..][..2].copy_from_slice(&self.linear.to_le_bytes());
        ring[HEADER + VIRTIO_HEADER..][..frame.len()].copy_from_slice(frame);
        ring[4..8].copy_from_slice(&((VIRTIO_HEADER + frame.len()) as u32).to_ne_bytes());
        ring[..4].copy_from_slice(&STATUS_SEND.to_ne_bytes());
        // SAFETY: send(2) without a buffer of ours: the kernel takes what is in the ring, and returns when it is done
        // with it.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), ptr::null(), 0, 0) };
        assert!(sent > 0, "the wire is there: {}", io::Error::last_os_error());
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: `mmap` gave this mapping, with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.memory, BLOCK) };
    }
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) {
    let (fd, length) = (socket.as_raw_fd(), size_of_val(value) as libc::socklen_t);
    // SAFETY: setsockopt(2) reads as many bytes as are passed here of a value that lives until it returns.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, ptr::from_ref(value).cast(), length) };
    assert_eq!(set, 0, "packet socket's option {option}: {}", io::Error::last_os_error());
}
