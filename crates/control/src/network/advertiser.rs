//! What this router owns, for others than the packet path: programs (`hooks`) and a routing daemon (`kernel_routes`).
//!
//! ```text
//!   control ── the VIPAs owned now ──►┬──► hooks: one program for each that came or went
//!              (a cell; the newest    └──► kernel_routes: one route for each, on the TUN interface
//!               word counts)
//! ```
//! Control only ever writes the cell. Whoever reads it works towards what it says at its own pace; what came and went
//! meanwhile was of no use to anybody any more.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::{sync::watch, task::JoinHandle};
use vipa_model::{Epoch, NodeName, config};

use crate::network::{hooks, kernel_routes};

/// The VIPAs owned, each with the epoch it is owned in.
pub(crate) type Owned = BTreeMap<IpAddr, Epoch>;

/// How long the last hooks and routes may take when the router stops, beyond a hook's own limit.
const FAREWELL: Duration = Duration::from_millis(500);

/// The writer's end, and the tasks at the others.
pub(crate) struct Advertiser {
    owned: watch::Sender<Owned>,
    hooks: watch::Sender<config::Hooks>,
    hook_counts: watch::Receiver<hooks::Counts>,
    route_counts: watch::Receiver<kernel_routes::Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Advertiser {
    /// Call it within a runtime.
    pub(crate) fn start(me: NodeName, hooks: &config::Hooks, announce: &config::Announce) -> Self {
        let (owned, changes) = watch::channel(Owned::new());
        let (hooks, settings) = watch::channel(hooks.clone());
        let (hook_counter, hook_counts) = watch::channel(hooks::Counts::default());
        let (route_counter, route_counts) = watch::channel(kernel_routes::Counts::default());
        let mut tasks = vec![tokio::spawn(hooks::run(me, settings, changes.clone(), hook_counter))];
        if let Some(interface) = announce.interface.clone() {
            tasks.push(tokio::spawn(kernel_routes::keep(interface, announce.table, changes, route_counter)));
        }
        Self { owned, hooks, hook_counts, route_counts, tasks }
    }

    pub(crate) fn own(&self, vipa: IpAddr, epoch: Epoch) {
        self.owned.send_if_modified(|owned| owned.insert(vipa, epoch) != Some(epoch));
    }

    pub(crate) fn release(&self, vipa: IpAddr) {
        self.owned.send_if_modified(|owned| owned.remove(&vipa).is_some());
    }

    pub(crate) fn set_hooks(&self, hooks: &config::Hooks) {
        self.hooks.send_replace(hooks.clone());
    }

    pub(crate) fn counts(&self) -> [(String, u64); 4] {
        let hooks::Counts { run, failed } = *self.hook_counts.borrow();
        let kernel_routes::Counts { set, failed: routes_failed } = *self.route_counts.borrow();
        [
            ("hook.run".into(), run),
            ("hook.failed".into(), failed),
            ("kernel_route.set".into(), set),
            ("kernel_route.failed".into(), routes_failed),
        ]
    }

    /// Nothing is owned any more: lets the last hooks run.
    pub(crate) async fn finish(self) {
        self.owned.send_replace(Owned::new());
        let limit = self.hooks.borrow().timeout + FAREWELL;
        drop(self.owned);
        for task in self.tasks {
            if tokio::time::timeout(limit, task).await.is_err() {
                tracing::warn!("a hook still ran when the router ended");
            }
        }
    }
}
