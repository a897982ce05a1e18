//! The TUN interface that routes for the routing daemon lead to. Packets that the kernel sends there are lost; nothing
//! should: the routes are in a table that the kernel does not forward by.

use std::{
    fs::{File, OpenOptions},
    os::fd::AsRawFd,
};

use anyhow::Context;
use nix::libc;

/// There for as long as this is.
pub(crate) struct Tun {
    _file: File,
}

nix::ioctl_write_int!(tun_set_interface, b'T', 202);

impl Tun {
    /// Makes the interface `name`, which must not be there yet.
    pub(crate) fn open(name: &str) -> anyhow::Result<Self> {
        let what = || format!("[announce] interface {name}");
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").with_context(what)?;
        // SAFETY: all zeroes are an `ifreq`, plain numbers and bytes.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero: a name has at most 15, which the configuration has checked.
        for (place, byte) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads an `ifreq` at the address it is given; `request` outlives the call.
        unsafe { tun_set_interface(file.as_raw_fd(), (&raw const request) as libc::c_ulong) }.with_context(what)?;
        Ok(Self { _file: file })
    }
}
