//! From a configuration to what the cluster's brain is told at birth.

use std::time::Duration;

use vipa_cluster::{Settings, Takeback, Timing, VipaSettings};
use vipa_model::{Incarnation, config};

/// How long a router that handed a VIPA over goes on forwarding what still reaches it.
const YIELD_LINGER: Duration = Duration::from_secs(2);

pub(crate) fn settings(config: &config::Config, incarnation: Incarnation) -> Settings {
    let cluster = &config.cluster;
    Settings {
        cluster: cluster.name.clone(),
        key: vipa_transport::key_digest(&cluster.name, &cluster.key),
        me: config.node.name.clone(),
        addresses: config.ports.iter().flat_map(config::Port::addresses).collect(),
        incarnation,
        voters: cluster.voters.clone(),
        timing: Timing {
            lease: cluster.lease,
            beat: cluster.beat,
            drift_percent: u32::from(cluster.drift_percent),
            claim_step: cluster.lease / 2,
            rebuild_deadline: cluster.rebuild_deadline,
            grace: cluster.grace,
            yield_linger: YIELD_LINGER,
        },
        vipas: config.vipas.iter().map(vipa_settings).collect(),
    }
}

fn vipa_settings(vipa: &config::Vipa) -> VipaSettings {
    let config::Vipa {
        address,
        ranks,
        activate,
        takeback,
        takeback_delay,
        group,
        services,
        new_per_second: _,
        unserved: _,
    } = vipa;
    VipaSettings {
        address: *address,
        ranks: ranks.clone(),
        services: services.clone(),
        activate: *activate,
        takeback: match takeback {
            config::Takeback::Immediate => Takeback::Immediate,
            config::Takeback::WhenIdle => Takeback::WhenIdle,
            config::Takeback::Manual => Takeback::Manual,
        },
        takeback_delay: *takeback_delay,
        group: group.clone(),
    }
}
