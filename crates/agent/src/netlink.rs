//! The agent's rtnetlink requests: interfaces by name, and the addresses of one.
//!
//! That something does not exist is an answer. Any other error is returned as an error; otherwise the agent would take
//! for gone what it only could not query.

use std::{collections::BTreeMap, net::IpAddr};

use futures::TryStreamExt;
use nix::libc;
use rtnetlink::{
    Error, Handle,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkMessage},
    },
};

/// The interface of this name; `None`: there is none.
pub(crate) async fn link_by_name(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    absent_if_no_device(links.try_next().await)
}

/// The number of the interface of this name; `None`: there is none.
pub(crate) async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    Ok(link_by_name(handle, name).await?.map(|link| link.header.index))
}

/// The interface of this number; `None`: there is none.
pub(crate) async fn link_by_index(handle: &Handle, index: u32) -> Result<Option<LinkMessage>, Error> {
    let mut links = handle.link().get().match_index(index).execute();
    absent_if_no_device(links.try_next().await)
}

/// The kernel answers a request for one interface with that interface or with an error, never with nothing.
fn absent_if_no_device(answer: Result<Option<LinkMessage>, Error>) -> Result<Option<LinkMessage>, Error> {
    match answer {
        Ok(Some(link)) => Ok(Some(link)),
        Ok(None) => Err(Error::RequestFailed),
        Err(error) if is(&error, libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The interface that has this address.
pub(crate) async fn interface_of(handle: &Handle, address: IpAddr) -> Result<Option<String>, Error> {
    let list = handle.address().get().set_address_filter(address).execute();
    let found: Vec<AddressMessage> = list.try_collect().await?;
    let Some(found) = found.first() else { return Ok(None) };
    let link = link_by_index(handle, found.header.index).await?;
    Ok(link.into_iter().flat_map(|link| link.attributes).find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    }))
}

/// Every address of one interface, in one dump.
pub(crate) async fn addresses_of(handle: &Handle, index: u32) -> Result<BTreeMap<IpAddr, AddressMessage>, Error> {
    let list = handle.address().get().set_link_index_filter(index).execute();
    let list: Vec<AddressMessage> = list.try_collect().await?;
    let mut addresses = BTreeMap::new();
    for message in list {
        let named = message.attributes.iter().filter_map(|attribute| match attribute {
            AddressAttribute::Address(address) | AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        for address in named.collect::<Vec<_>>() {
            addresses.insert(address, message.clone());
        }
    }
    Ok(addresses)
}

/// Every address of this host with the number of its interface, in one dump.
pub(crate) async fn all_addresses(handle: &Handle) -> Result<Vec<(u32, IpAddr)>, Error> {
    let list: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
    let own = |message: AddressMessage| {
        let index = message.header.index;
        message.attributes.into_iter().filter_map(move |attribute| match attribute {
            // `Address` is the other end's on a point-to-point link, and the same as `Local` elsewhere; IPv6 has
            // `Address` alone.
            AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some((index, address)),
            _ => None,
        })
    };
    let mut addresses: Vec<(u32, IpAddr)> = list.into_iter().flat_map(own).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The name of an interface on which this host answers ARP and neighbour discovery; `None`: it is gone, or a loopback
/// or dummy interface.
pub(crate) async fn answering_interface(handle: &Handle, index: u32) -> Result<Option<String>, Error> {
    let Some(link) = link_by_index(handle, index).await? else { return Ok(None) };
    if link.header.flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp) {
        return Ok(None);
    }
    Ok(link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    }))
}

/// Whether the kernel refused with this error number.
pub(crate) fn is(error: &Error, number: i32) -> bool {
    matches!(error, Error::NetlinkError(message) if message.raw_code() == -number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interface_that_is_absent_is_told_from_one_that_could_not_be_asked_for() {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        let connection = tokio::spawn(connection);
        assert_eq!(index_of(&handle, "lo").await, Ok(Some(1)));
        assert_eq!(index_of(&handle, "nosuch0").await, Ok(None));
        let too_long = index_of(&handle, "a-name-that-no-kernel-takes").await;
        assert!(matches!(too_long, Err(Error::NetlinkError(_))), "{too_long:?}");
        connection.abort();
        let _ = connection.await;
        let unheard = index_of(&handle, "lo").await;
        assert_eq!(unheard, Err(Error::RequestFailed));
    }

    #[tokio::test]
    async fn the_addresses_of_an_interface_are_its_own() {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let here = addresses_of(&handle, 1).await.unwrap();
        assert!(here.contains_key(&"127.0.0.1".parse::<IpAddr>().unwrap()), "{here:?}");
        assert!(here.values().all(|message| message.header.index == 1));
    }
}
