//! Encoding of messages as bytes.
//!
//! ```text
//!  0        4
//!  ┌────────┬──────────────────────┐   on a stream: one after the other
//!  │ length │ message (postcard)   │   length: bytes of the message alone, big-endian
//!  └────────┴──────────────────────┘   in a datagram: the message alone, without length
//! ```

use crate::Message;

/// Longest message, bytes. A snapshot is sent in parts that are far shorter.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Bytes of the length before a message on a stream.
pub const LENGTH_BYTES: usize = 4;

const _: () = assert!(MAX_MESSAGE <= u32::MAX as usize);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a message of {0} bytes is longer than {MAX_MESSAGE}; send it in parts")]
    TooLong(usize),
    #[error("these bytes are no message of protocol version {version}: {cause}", version = crate::VERSION)]
    Malformed { cause: postcard::Error },
    #[error("{0} bytes follow the message; the peer speaks another version")]
    Trailing(usize),
}

/// Encodes the message without a length, for a datagram.
pub fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_stdvec(message).map_err(|cause| WireError::Malformed { cause })?;
    if bytes.len() > MAX_MESSAGE { Err(WireError::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// Encodes the message with its length before it, for a stream.
pub fn encode_framed(message: &Message) -> Result<Vec<u8>, WireError> {
    let framed = postcard::to_extend(message, vec![0; LENGTH_BYTES]);
    let mut bytes = framed.map_err(|cause| WireError::Malformed { cause })?;
    let length = bytes.len() - LENGTH_BYTES;
    if length > MAX_MESSAGE {
        return Err(WireError::TooLong(length));
    }
    let length = u32::try_from(length).expect("MAX_MESSAGE fits 32 bits");
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// The number of bytes of the message after this length prefix.
pub fn length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MAX_MESSAGE { Err(WireError::TooLong(length)) } else { Ok(length) }
}

/// Decodes one whole message without its length. Never panics, whatever the bytes.
pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(WireError::TooLong(bytes.len()));
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(WireError::Trailing(rest.len())),
        Err(cause) => Err(WireError::Malformed { cause }),
    }
}

#[cfg(test)]
mod tests;
