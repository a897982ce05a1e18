//! Asks an application whether it serves, over the kernel's network: a TCP connection, or a page over HTTP/1.1.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes of an answer looked at; its first line is what counts.
const MAX_ANSWER: u64 = 4096;

/// Why there is no success, in a few words.
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

/// Asks for `path`; the status, if it is one of `statuses` (both ends included).
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

    /// Where somebody answers one connection with these bytes, and the question he was asked.
    async fn answering(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 512];
            let length = stream.read(&mut question).await.unwrap();
            // Who was cut off may have heard enough.
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
