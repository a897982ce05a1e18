//! Probes over the kernel's network: whether an application serves, by a TCP connection or a page over HTTP/1.1; and
//! whether a host lives, by a ping.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes of an answer that are read; only its first line matters.
const MAX_ANSWER: u64 = 4096;

/// Why a probe failed, in a few words.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("the answer is not HTTP")]
    NotHttp,
}

/// Opens a connection and closes it. The caller limits the time.
pub async fn connect(address: SocketAddr) -> Result<(), ProbeError> {
    TcpStream::connect(address).await?;
    Ok(())
}

/// Requests `path`; returns the status, if it is one of `statuses` (both ends included).
pub async fn http(address: SocketAddr, path: &str, statuses: (u16, u16)) -> Result<u16, ProbeError> {
    let mut stream = TcpStream::connect(address).await?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: vipa\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut limited = stream.take(MAX_ANSWER);
    let mut part = [0; 512];
    while !answer.contains(&b'\n') {
        match limited.read(&mut part).await? {
            0 => break,
            length => answer.extend(&part[..length]),
        }
    }
    match status(&answer).ok_or(ProbeError::NotHttp)? {
        status if (statuses.0..=statuses.1).contains(&status) => Ok(status),
        status => Err(ProbeError::Status(status)),
    }
}

/// Sends an ICMP echo request (RFC 792, RFC 4443 §4.1) and waits for its answer. Needs CAP_NET_RAW.
pub async fn ping(address: IpAddr) -> Result<(), ProbeError> {
    let (domain, protocol, request, reply) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    // A raw socket sends and receives as a datagram socket does.
    let socket = tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?;
    let mut mark = [0; 8];
    SystemRandom::new().fill(&mut mark).map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
    socket.send(&echo(request, mark)).await?;
    let mut answer = [0; 256];
    loop {
        let length = socket.recv(&mut answer).await?;
        // An IPv4 packet is received with its header.
        let header = if address.is_ipv4() { usize::from(answer[0] & 15) * 4 } else { 0 };
        let echoed = answer[..length].get(header..).unwrap_or_default();
        if echoed.first() == Some(&reply) && echoed.get(4..12) == Some(&mark[..]) {
            return Ok(());
        }
    }
}

/// Type, code, checksum, and in the place of identifier, number and data a random mark. The kernel computes IPv6's
/// checksum.
fn echo(kind: u8, mark: [u8; 8]) -> [u8; 12] {
    let mut message = [0; 12];
    message[0] = kind;
    message[4..].copy_from_slice(&mark);
    let words = message.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    message[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    message
}

/// `HTTP/1.1 200 OK`
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let (version, rest) = line.split_once(' ')?;
    let status = rest.split(' ').next()?.parse().ok()?;
    (version.starts_with("HTTP/1.") && (100..=599).contains(&status)).then_some(status)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one connection with these bytes, and the request that it received.
    async fn answering(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 512];
            let length = stream.read(&mut question).await.unwrap();
            // A client that was cut off may have read enough.
            let _ = stream.write_all(answer).await;
            String::from_utf8(question[..length].to_vec()).unwrap()
        });
        (address, asked)
    }

    #[tokio::test]
    async fn a_page_is_asked_for_and_its_status_judged() {
        let (address, asked) = answering(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(http(address, "/health", (200, 399)).await.unwrap(), 204);
        let question = asked.await.unwrap();
        assert!(question.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"), "{question}");
        let (address, _asked) = answering(b"HTTP/1.0 503 Busy\r\n\r\n").await;
        assert_eq!(http(address, "/", (200, 399)).await.unwrap_err().to_string(), "status 503");
    }

    #[tokio::test]
    async fn this_host_answers_a_ping_in_both_families() {
        for address in ["127.0.0.1", "::1"] {
            match ping(address.parse().unwrap()).await {
                Ok(()) => {}
                Err(ProbeError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(ProbeError::Io(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => panic!("{address}: {error}"),
            }
        }
    }

    #[test]
    fn an_echo_sums_up_to_nothing() {
        let message = echo(8, [0xff; 8]);
        let sum: u32 = message.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[tokio::test]
    async fn what_is_not_http_or_nobody_is_a_failure() {
        for answer in [&b"SSH-2.0-x\r\n"[..], b"", b"HTTP/1.1 9999 x\r\n", b"HTTP/1.1\n", &[0xff; 9000]] {
            let (address, _asked) = answering(answer).await;
            assert!(http(address, "/", (100, 599)).await.is_err(), "{answer:?}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(connect(nobody).await.is_err());
        let (address, _asked) = answering(b"").await;
        connect(address).await.unwrap();
    }
}
