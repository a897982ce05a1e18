//! UDP of any size, there and back.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::frame::scramble;

/// Answers every datagram with itself, from the address it was sent to; for ever.
pub fn echo(listen: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot bind {listen}"))?;
    println!("listening");
    let mut bytes = vec![0; 1 << 16];
    loop {
        let (length, from) = socket.recv_from(&mut bytes)?;
        socket.send_to(&bytes[..length], from)?;
    }
}

/// Sends `count` datagrams of `size` bytes, each from a port of its own, and expects every byte back.
pub fn ask(vipa: SocketAddr, size: usize, count: u16) -> Result<()> {
    for number in 0..count {
        let any: SocketAddr = if vipa.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect(vipa)?;
        let sent: Vec<u8> = (0..size).map(|at| scramble(at as u64 ^ u64::from(number) << 32) as u8).collect();
        let mut got = vec![0; 1 << 16];
        // A datagram may be lost; three in a row are not lost by chance.
        let back = (0..3).find_map(|_| {
            socket.send(&sent).ok()?;
            socket.recv(&mut got).ok()
        });
        let length = back.with_context(|| format!("datagram {number} of {size} bytes has no answer"))?;
        ensure!(got[..length] == sent[..], "the answer to datagram {number} is not what was sent");
    }
    println!("{count} datagrams of {size} bytes came back");
    Ok(())
}
