//! One message: a header of 64 bytes and a payload that only this message of this connection has.
//!
//! ```text
//!  0        4        8           16          24          32               48          56         64
//!  ┌────────┬────────┬───────────┬───────────┬───────────┬────────────────┬───────────┬──────────┐
//!  │ kind   │ length │connection │ sequence  │ accepted  │ server's name  │ sent      │ checksum │ payload …
//!  └────────┴────────┴───────────┴───────────┴───────────┴────────────────┴───────────┴──────────┘
//! ```

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(super) const HEADER: usize = 64;
/// Payloads are shorter; a greater length is a sign of foreign or lost bytes.
const MAX_PAYLOAD: usize = 16 * 1024;
const ASK: u32 = u32::from_be_bytes(*b"ask\n");
const ANSWER: u32 = u32::from_be_bytes(*b"ans\n");
const REQUEST: u32 = u32::from_be_bytes(*b"req\n");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ask,
    Answer,
    /// The only message of a connection of one request.
    Request,
}

/// The header without its computed fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) connection: u64,
    pub(super) sequence: u64,
    /// Chosen by the server for each connection it accepts; another server's differs. 0 from the client.
    pub(super) accepted: u64,
    /// At most 16 bytes, padded with zeros.
    pub(super) server: [u8; 16],
    pub(super) payload: Vec<u8>,
}

/// Why no message could be read.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The peer closed the connection between two messages.
    Closed,
    Socket(io::Error),
    /// Bytes that are not the expected message.
    Wrong(String),
}

impl Frame {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let kind = match self.kind {
            Kind::Ask => ASK,
            Kind::Answer => ANSWER,
            Kind::Request => REQUEST,
        };
        into.clear();
        into.extend_from_slice(&kind.to_be_bytes());
        into.extend_from_slice(&u32::try_from(self.payload.len()).expect("payloads are small").to_be_bytes());
        into.extend_from_slice(&self.connection.to_be_bytes());
        into.extend_from_slice(&self.sequence.to_be_bytes());
        into.extend_from_slice(&self.accepted.to_be_bytes());
        into.extend_from_slice(&self.server);
        into.extend_from_slice(&0u64.to_be_bytes());
        let checksum = checksum(&[into, &self.payload]);
        into.extend_from_slice(&checksum.to_be_bytes());
        into.extend_from_slice(&self.payload);
    }

    pub(super) async fn write(&self, stream: &mut TcpStream, scratch: &mut Vec<u8>) -> Result<(), Trouble> {
        self.encode(scratch);
        stream.write_all(scratch).await.map_err(Trouble::Socket)
    }

    pub(super) async fn read(stream: &mut TcpStream) -> Result<Self, Trouble> {
        let mut header = [0; HEADER];
        match stream.read(&mut header).await.map_err(Trouble::Socket)? {
            0 => return Err(Trouble::Closed),
            some => read_rest(stream, &mut header[some..]).await?,
        }
        let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let short = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let kind = match short(0) {
            ASK => Kind::Ask,
            ANSWER => Kind::Answer,
            REQUEST => Kind::Request,
            other => return Err(Trouble::Wrong(format!("{other:#010x} where a message should begin"))),
        };
        let length = short(4) as usize;
        if length > MAX_PAYLOAD {
            return Err(Trouble::Wrong(format!("a message of {length} bytes")));
        }
        let mut payload = vec![0; length];
        read_rest(stream, &mut payload).await?;
        if checksum(&[&header[..HEADER - 8], &payload]) != number(56) {
            return Err(Trouble::Wrong("a wrong checksum".into()));
        }
        let server = header[32..48].try_into().expect("sixteen bytes");
        Ok(Self { kind, connection: number(8), sequence: number(16), accepted: number(24), server, payload })
    }
}

async fn read_rest(stream: &mut TcpStream, into: &mut [u8]) -> Result<(), Trouble> {
    match stream.read_exact(into).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Trouble::Wrong("the end of the stream inside a message".into()))
        }
        Err(error) => Err(Trouble::Socket(error)),
    }
}

/// The payload of a message: mostly small, every sixteenth spans several segments.
pub(super) fn payload(connection: u64, sequence: u64) -> Vec<u8> {
    let mut seed = scramble(connection ^ scramble(sequence));
    let length = if sequence % 16 == 15 { 8192 } else { 16 + seed as usize % 200 };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed = scramble(seed);
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A mixing function on 64 bits (the finaliser of splitmix64).
pub(super) fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Reads eight bytes at a time; every byte and its position matter.
fn checksum(parts: &[&[u8]]) -> u64 {
    let mut sum = 0x5649_5041u64;
    for part in parts {
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = scramble(sum ^ u64::from_le_bytes(word)).wrapping_add(chunk.len() as u64);
        }
    }
    sum
}
