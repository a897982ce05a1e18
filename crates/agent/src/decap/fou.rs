//! GUE by the kernel: a UDP port of `fou`, which removes UDP and GUE and passes the inner packet to the tunnel devices.
//! Configured by generic netlink (`linux/fou.h`).

use std::{io, net::IpAddr};

use futures::StreamExt;
use genetlink::GenetlinkError;
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, ParseableParametrized,
};

/// The UDP port to which routers send GUE.
const GUE_PORT: u16 = 6_080;
const VERSION: u8 = 1;
const TYPE_GUE: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Commands of `fou`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Add = 1,
    Delete = 2,
}

#[derive(Clone, Debug)]
struct Request {
    command: u8,
    attributes: Vec<DefaultNla>,
}

impl Request {
    fn new(command: Command, own: IpAddr) -> Self {
        let (family, local, address) = match own {
            IpAddr::V4(own) => (AF_INET, 6, own.octets().to_vec()),
            IpAddr::V6(own) => (AF_INET6, 7, own.octets().to_vec()),
        };
        let attributes = vec![
            DefaultNla::new(1, GUE_PORT.to_be_bytes().to_vec()),
            DefaultNla::new(2, vec![family]),
            DefaultNla::new(4, vec![TYPE_GUE]),
            DefaultNla::new(local, address),
        ];
        Self { command: command as u8, attributes }
    }
}

impl GenlFamily for Request {
    fn family_name() -> &'static str {
        "fou"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        VERSION
    }
}

impl Emitable for Request {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

/// Replies of `fou` other than errors are ignored.
impl ParseableParametrized<[u8], GenlHeader> for Request {
    fn parse_with_param(_: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { command: header.cmd, attributes: Vec::new() })
    }
}

/// Opens the port at this address.
pub(super) async fn open(own: IpAddr) -> io::Result<()> {
    request(Request::new(Command::Add, own)).await
}

/// Closes the port at this address.
pub(super) async fn close(own: IpAddr) -> io::Result<()> {
    request(Request::new(Command::Delete, own)).await
}

async fn request(request: Request) -> io::Result<()> {
    let (connection, mut handle, _) = genetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let mut message = NetlinkMessage::from(GenlMessage::from_payload(request));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let answer = match handle.request(message).await {
        Ok(mut answers) => answers.next().await,
        Err(error) => {
            connection.abort();
            return Err(match error {
                GenetlinkError::NetlinkError(error) => error,
                other => io::Error::other(other),
            });
        }
    };
    connection.abort();
    match answer {
        Some(Ok(NetlinkMessage { payload: NetlinkPayload::Error(error), .. })) if error.code.is_some() => {
            Err(error.to_io())
        }
        Some(Err(error)) => Err(io::Error::other(error)),
        _ => Ok(()),
    }
}
