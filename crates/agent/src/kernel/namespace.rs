//! A network namespace of this host, for reading its sockets.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    libc,
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::diag::{Diag, Ends};

/// Folder in which `ip netns` keeps names.
const NAMED: &str = "/run/netns";

#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) diag: Diag,
    /// Needed as long as a connection lives whose end nothing else reports.
    pub(crate) ends: Option<Ends>,
    /// The namespace's identification in BPF programs.
    pub(crate) cookie: io::Result<u64>,
}

impl Namespace {
    /// The namespace of this thread.
    pub(crate) fn own() -> io::Result<Self> {
        Ok(Self { diag: Diag::open()?, ends: Some(Ends::open()?), cookie: cookie() })
    }

    /// Another namespace: by its name for `ip netns`, or by the path of its file. Netlink sockets belong to the
    /// namespace in which they were made, so a thread of its own enters that one to make them.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let path: PathBuf = if name.starts_with('/') { name.into() } else { Path::new(NAMED).join(name) };
        let file = File::open(path)?;
        let enter = move || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Self::own()
        };
        thread::spawn(enter).join().unwrap_or_else(|_| Err(io::Error::other("the thread that entered it panicked")))
    }
}

/// SO_NETNS_COOKIE of a socket made here (Linux 5.14).
fn cookie() -> io::Result<u64> {
    let here: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).expect("8");
    let (value, length_there) = ((&raw mut cookie).cast(), &raw mut length);
    #[expect(unsafe_code, reason = "no safe wrapper knows this option")]
    // SAFETY: `here` is an open socket, and `value` has room for the `length` bytes that the kernel may write.
    let done =
        unsafe { libc::getsockopt(here.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, length_there) };
    if done == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
