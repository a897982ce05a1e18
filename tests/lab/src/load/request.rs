//! A connection of one request. The request states how the connection ends: which end closes first, how, and after what
//! silence.
//!
//! ```text
//!   client                                   server
//!     │ ─── request ───────────────────────────► │
//!     │ ◄── answer: a header with its name ───── │
//!     │ ◄── `answer_bytes` ───────────────────── │   after the silence, when the client has closed its half
//!     │ ─── `late_bytes` ──────────────────────► │   after the silence, when the server has closed its half
//! ```

use std::{net::SocketAddr, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::frame::{Frame, Kind, Trouble, scramble};

/// Which end closes first, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The server closes once it has answered, as in HTTP/1.0: the client may use its port again at once.
    ServerCloses,
    /// The client resets the connection once it has the answer, and may use its port again at once.
    ClientResets,
    /// The server is silent, then answers and closes; no half is closed before.
    ServerPauses,
    /// The client closes once it has the answer; the server is silent, then closes. The client's port waits in TIME-WAIT.
    ClientCloses,
    /// The client closes its half after the request; the server is silent, then answers and closes.
    ClientHalfCloses,
    /// The server answers and closes its half; the client is silent, then sends `late_bytes` and closes.
    ServerHalfCloses,
}

/// The client's request, as the payload of a [`Kind::Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) ending: Ending,
    pub(super) answer_bytes: usize,
    pub(super) late_bytes: usize,
    pub(super) silence_ms: u64,
}

impl Request {
    pub(super) fn frame(&self, connection: u64) -> Frame {
        let payload = serde_json::to_vec(self).expect("a request is plain data");
        Frame { kind: Kind::Request, connection, sequence: 0, accepted: 0, server: [0; 16], payload }
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms)
    }
}

/// The bytes that a connection's server, or its client, sends.
fn body(connection: u64, bytes: usize) -> Vec<u8> {
    let mut seed = scramble(connection);
    let mut body = Vec::with_capacity(bytes + 8);
    while body.len() < bytes {
        seed = scramble(seed);
        body.extend_from_slice(&seed.to_le_bytes());
    }
    body.truncate(bytes);
    body
}

async fn read_body(stream: &mut TcpStream, connection: u64, bytes: usize) -> Result<(), Trouble> {
    let mut read = vec![0; bytes];
    match stream.read_exact(&mut read).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Trouble::Wrong("the end of the stream inside the answer".into()))
        }
        Err(error) => Err(Trouble::Socket(error)),
        Ok(_) if read != body(connection, bytes) => Err(Trouble::Wrong("a wrong byte in the answer".into())),
        Ok(_) => Ok(()),
    }
}

async fn read_end(stream: &mut TcpStream) -> Result<(), Trouble> {
    match stream.read(&mut [0; 1]).await.map_err(Trouble::Socket)? {
        0 => Ok(()),
        _ => Err(Trouble::Wrong("bytes where the end should come".into())),
    }
}

/// The server's end, from the request that it has read to the end of the connection.
pub(super) async fn answer(
    stream: &mut TcpStream,
    asked: &Frame,
    accepted: u64,
    server: [u8; 16],
) -> Result<(), Trouble> {
    let request: Request = serde_json::from_slice(&asked.payload)
        .map_err(|error| Trouble::Wrong(format!("a request that is none: {error}")))?;
    let connection = asked.connection;
    let header = Frame { kind: Kind::Answer, connection, sequence: 0, accepted, server, payload: Vec::new() };
    header.write(stream, &mut Vec::new()).await?;
    if request.ending == Ending::ClientHalfCloses {
        read_end(stream).await?;
    }
    if let Ending::ClientHalfCloses | Ending::ServerPauses = request.ending {
        sleep(request.silence()).await;
    }
    stream.write_all(&body(connection, request.answer_bytes)).await.map_err(Trouble::Socket)?;
    match request.ending {
        Ending::ClientResets => match read_end(stream).await {
            Err(Trouble::Socket(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
            Err(trouble) => Err(trouble),
            Ok(()) => Err(Trouble::Wrong("an orderly end where a reset should come".into())),
        },
        Ending::ClientCloses => {
            read_end(stream).await?;
            sleep(request.silence()).await;
            stream.shutdown().await.map_err(Trouble::Socket)
        }
        Ending::ServerCloses | Ending::ServerPauses | Ending::ClientHalfCloses => {
            stream.shutdown().await.map_err(Trouble::Socket)?;
            // The other half is closed already if the client has closed it first.
            read_end(stream).await
        }
        Ending::ServerHalfCloses => {
            stream.shutdown().await.map_err(Trouble::Socket)?;
            read_body(stream, connection.rotate_left(32), request.late_bytes).await?;
            read_end(stream).await
        }
    }
}

/// The client's end once the connection is open. `named` receives the server's name as soon as the server has sent it.
pub(super) async fn ask(
    mut stream: TcpStream,
    request: &Request,
    connection: u64,
    named: impl FnOnce([u8; 16]),
) -> Result<(), Trouble> {
    stream.set_nodelay(true).map_err(Trouble::Socket)?;
    request.frame(connection).write(&mut stream, &mut Vec::new()).await?;
    if request.ending == Ending::ClientHalfCloses {
        stream.shutdown().await.map_err(Trouble::Socket)?;
    }
    let header = Frame::read(&mut stream).await?;
    if header.kind != Kind::Answer || header.connection != connection || !header.payload.is_empty() {
        return Err(Trouble::Wrong(format!(
            "the answer to {:x} where that to {connection:x} should come",
            header.connection
        )));
    }
    named(header.server);
    read_body(&mut stream, connection, request.answer_bytes).await?;
    match request.ending {
        Ending::ClientResets => stream.set_zero_linger().map_err(Trouble::Socket),
        Ending::ClientCloses => stream.shutdown().await.map_err(Trouble::Socket),
        Ending::ServerCloses | Ending::ServerPauses | Ending::ClientHalfCloses => read_end(&mut stream).await,
        Ending::ServerHalfCloses => {
            read_end(&mut stream).await?;
            sleep(request.silence()).await;
            let late = body(connection.rotate_left(32), request.late_bytes);
            stream.write_all(&late).await.map_err(Trouble::Socket)?;
            stream.shutdown().await.map_err(Trouble::Socket)
        }
    }
}

/// A client's connection from this port; the kernel chooses when it is 0.
pub(super) async fn connect(vipa: SocketAddr, port: u16) -> std::io::Result<TcpStream> {
    let any: SocketAddr = if vipa.is_ipv4() { ([0, 0, 0, 0], port).into() } else { ([0_u16; 8], port).into() };
    loop {
        let socket = if vipa.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
        if port != 0 {
            socket.set_reuseaddr(true)?;
            socket.bind(any)?;
        }
        match socket.connect(vipa).await {
            // The last acknowledgement of the previous connection is still under way.
            Err(error) if port != 0 && error.kind() == std::io::ErrorKind::AddrNotAvailable => {
                sleep(Duration::from_millis(1)).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
