//! A capture file (IETF draft-ietf-opsawg-pcapng): one section, an interface for each port, a block for each packet.

use std::io::{self, Write};

use vipa_protocol::admin::CapturedPacket;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Tells the order of bytes (§4.1).
const MAGIC: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
/// Options (§3.5, §4.2, §4.3).
const COMMENT: u16 = 1;
const NAME: u16 = 2;
const FLAGS: u16 = 2;
const RESOLUTION: u16 = 9;
const END: u16 = 0;

pub(super) struct Writer<W: Write> {
    out: W,
    ports: Vec<String>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, ports: Vec::new() };
        let mut body = Vec::new();
        body.extend(MAGIC.to_le_bytes());
        body.extend([1_u16, 0].map(u16::to_le_bytes).concat());
        // Of a length that is not known.
        body.extend((-1_i64).to_le_bytes());
        writer.block(SECTION, &body)?;
        Ok(writer)
    }

    /// A packet, and its port's interface when it is the first of it.
    pub(super) fn packet(&mut self, packet: &CapturedPacket) -> io::Result<()> {
        let CapturedPacket { unix_ns, port, is_outgoing, fate, length, frame } = packet;
        let interface = match self.ports.iter().position(|known| known == port) {
            Some(interface) => interface,
            None => self.interface(port)?,
        };
        let frame = bytes_of(frame)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a frame is no hexadecimal digits"))?;
        let mut body = Vec::new();
        let captured = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let (high, low) = ((unix_ns >> 32) as u32, *unix_ns as u32);
        for word in [u32::try_from(interface).map_err(io::Error::other)?, high, low, captured, *length] {
            body.extend(word.to_le_bytes());
        }
        body.extend(&frame);
        pad(&mut body);
        option(&mut body, COMMENT, fate.as_bytes());
        // Inbound or outbound.
        option(&mut body, FLAGS, &(if *is_outgoing { 2_u32 } else { 1 }).to_le_bytes());
        option(&mut body, END, &[]);
        self.block(PACKET, &body)
    }

    fn interface(&mut self, port: &str) -> io::Result<usize> {
        let mut body = [ETHERNET, 0].map(u16::to_le_bytes).concat();
        // Packets are kept to any length.
        body.extend(0_u32.to_le_bytes());
        option(&mut body, NAME, port.as_bytes());
        // Times are nanoseconds.
        option(&mut body, RESOLUTION, &[9]);
        option(&mut body, END, &[]);
        self.block(INTERFACE, &body)?;
        self.ports.push(port.to_owned());
        Ok(self.ports.len() - 1)
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(body)?;
        self.out.write_all(&length.to_le_bytes())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(&value[..value.len().min(usize::from(u16::MAX))]);
    pad(body);
}

/// To a multiple of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_of_the_length_that_they_say() {
        let packet = |port: &str, is_outgoing| CapturedPacket {
            unix_ns: 0x1122_3344_5566_7788,
            port: port.into(),
            is_outgoing,
            fate: "dropped.no-target".into(),
            length: 60,
            frame: "0a0b0c".into(),
        };
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        for (port, is_outgoing) in [("p0", false), ("p1", true), ("p0", true)] {
            writer.packet(&packet(port, is_outgoing)).unwrap();
        }
        writer.flush().unwrap();
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let (mut kinds, mut at) = (Vec::new(), 0);
        while at < file.len() {
            let length = word(at + 4) as usize;
            assert_eq!((length % 4, word(at + length - 4) as usize), (0, length));
            kinds.push(word(at));
            at += length;
        }
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET]);
        let text = String::from_utf8_lossy(&file);
        assert_eq!(text.matches("dropped.no-target").count(), 3);
    }

    #[test]
    fn a_frame_that_is_no_digits_is_refused() {
        assert_eq!(bytes_of("00ff"), Some(vec![0, 255]));
        assert_eq!([bytes_of("0"), bytes_of("0g"), bytes_of("€a")], [None, None, None]);
    }
}
