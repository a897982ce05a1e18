//! A route for each owned VIPA, in a table of its own in this host's kernel, for a routing daemon to announce.
//!
//! The routes lead to a TUN interface that lives exactly as long as `vipad`: when that ends, killed or not, the kernel
//! takes the interface and its routes away, and the routing daemon withdraws them. A route's metric is the ownership's
//! epoch, so that where two routers announce a VIPA at once (one is stopped, or both are on the way from one to the
//! other) the routers beyond can prefer the newer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::route::{RouteMessage, RouteScope},
};
use tokio::sync::watch;
use vipa_model::Epoch;

use crate::network::advertiser::Owned;

/// A change the kernel refused is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Routes that are there.
    pub(crate) set: u64,
    pub(crate) failed: u64,
}

/// Keeps the kernel's routes as `owned` says, until the writer is gone and its last word is done.
pub(crate) async fn keep(
    interface: String,
    table: u32,
    mut owned: watch::Receiver<Owned>,
    counts: watch::Sender<Counts>,
) {
    let kernel = match Kernel::open(&interface, table).await {
        Ok(kernel) => kernel,
        Err(error) => {
            tracing::error!(%interface, %error, "no routes for the routing daemon");
            counts.send_modify(|counts| counts.failed += 1);
            return;
        }
    };
    let mut set = Owned::new();
    loop {
        let wanted = owned.borrow_and_update().clone();
        let refused = kernel.reconcile(&mut set, &wanted).await;
        counts.send_modify(|counts| {
            counts.set = set.len() as u64;
            counts.failed += refused;
        });
        let again = tokio::time::sleep(RETRY);
        tokio::select! {
            changed = owned.changed() => if changed.is_err() {
                return;
            },
            () = again, if refused > 0 => {}
        }
    }
}

struct Kernel {
    handle: Handle,
    index: u32,
    table: u32,
}

impl Kernel {
    async fn open(interface: &str, table: u32) -> Result<Self, String> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| format!("no netlink: {error}"))?;
        tokio::spawn(connection);
        let mut links = handle.link().get().match_name(interface.to_owned()).execute();
        let found = links.try_next().await.map_err(|error| format!("cannot find it: {error}"))?;
        let index = found.ok_or("it is not there")?.header.index;
        let up = handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute();
        up.await.map_err(|error| format!("cannot bring it up: {error}"))?;
        Ok(Self { handle, index, table })
    }

    /// Makes the routes of `wanted` and no others be there; says how many changes were refused. The newer route comes
    /// before the older goes.
    async fn reconcile(&self, set: &mut Owned, wanted: &Owned) -> u64 {
        let mut refused = 0;
        let before = set.clone();
        for (&vipa, &epoch) in wanted {
            if before.get(&vipa) == Some(&epoch) {
                continue;
            }
            match self.handle.route().add(self.route(vipa, epoch)).replace().execute().await {
                Ok(()) => {
                    set.insert(vipa, epoch);
                }
                Err(error) => {
                    refused += 1;
                    tracing::warn!(%vipa, %error, "the kernel does not take the route");
                }
            }
        }
        for (&vipa, &epoch) in before.iter().filter(|(vipa, epoch)| wanted.get(vipa) != Some(epoch)) {
            if set.get(&vipa) == Some(&epoch) && wanted.contains_key(&vipa) {
                continue; // What should replace it was refused.
            }
            if let Err(error) = self.handle.route().del(self.route(vipa, epoch)).execute().await {
                // It may have been taken away by hand.
                tracing::warn!(%vipa, %error, "the kernel does not give the route up");
            }
            if !wanted.contains_key(&vipa) {
                set.remove(&vipa);
            }
        }
        refused
    }

    fn route(&self, vipa: IpAddr, epoch: Epoch) -> RouteMessage {
        // Epochs beyond 32 bits are beyond any cluster's life.
        let metric = u32::try_from(epoch.0).unwrap_or(u32::MAX);
        match vipa {
            IpAddr::V4(vipa) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(vipa, 32)
                .output_interface(self.index)
                .table_id(self.table)
                .priority(metric)
                .scope(RouteScope::Link)
                .build(),
            IpAddr::V6(vipa) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(vipa, 128)
                .output_interface(self.index)
                .table_id(self.table)
                .priority(metric)
                .build(),
        }
    }
}
