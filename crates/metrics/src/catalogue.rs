//! Every metric that Vipa has: what it is called, what it says, and what bounds its series.
//!
//! Names follow Prometheus' conventions: `vipa_` first, base units (`_seconds`, `_bytes`), `_total` for what only rises, `_ratio`
//! for 0 to 1. No label carries a state: a state is a gauge of 0 or 1, or one such series for each value that it may have.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A count of observations by their size.
    Histogram,
    /// Always 1; its labels are the message.
    Info,
}

/// The program that exposes a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricSource {
    Router,
    Agent,
    Both,
}

impl MetricSource {
    #[must_use]
    pub fn is_router(self) -> bool {
        matches!(self, Self::Router | Self::Both)
    }

    #[must_use]
    pub fn is_agent(self) -> bool {
        matches!(self, Self::Agent | Self::Both)
    }
}

/// What the number of a metric's series depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    One,
    /// Two: IPv4 and IPv6, or two kinds.
    Two,
    Ports,
    Workers,
    /// Names that are fixed in the program.
    Names,
    Vipas,
    Services,
    Targets,
    /// Routers of the configuration and targets.
    Peers,
}

impl Bound {
    /// For docs/metrics.md.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
            Self::Ports => "ports",
            Self::Workers => "workers",
            Self::Names => "fixed names",
            Self::Vipas => "VIPAs",
            Self::Services => "services",
            Self::Targets => "targets",
            Self::Peers => "nodes",
        }
    }
}

/// A metric with `N` labels.
#[derive(Clone, Copy, Debug)]
pub struct Family<const N: usize> {
    /// Its place in [`ALL`].
    pub(crate) index: usize,
}

/// What is known of a metric.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// As it stands in the exposition; a histogram's without `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    pub kind: ValueKind,
    pub labels: &'static [&'static str],
    pub source: MetricSource,
    pub bound: Bound,
    /// A sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $source:ident $bound:ident: $help:literal)*) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "they number the constants below, under their names")]
        enum Index { $($id),* }
        $(
            #[doc = $help]
            pub const $id: Family<{ <[&str]>::len(&[$($label),*]) }> = Family { index: Index::$id as usize };
        )*
        /// Every metric, in the order of the exposition.
        pub const ALL: &[About] = &[$(About {
            name: $name,
            kind: ValueKind::$kind,
            labels: &[$($label),*],
            source: MetricSource::$source,
            bound: Bound::$bound,
            help: $help,
        }),*];
    };
}

families! {
    BUILD = Info "vipa_build_info" ["program", "version"] Both One: "The program and its version."
    NODE = Info "vipa_node_info" ["node", "cluster"] Both One: "The node's name and its cluster's."
    START_TIME = Gauge "vipa_start_time_seconds" [] Both One: "When the program started, in seconds since 1970."
    SNAPSHOT_TIME = Gauge "vipa_scrape_snapshot_seconds" [] Both One: "How long this scrape kept the program's main loop from its other work."
    SERIES_LEFT_OUT = Gauge "vipa_scrape_series_left_out" [] Both One: "Series that this scrape leaves out because their metric has too many."

    PORT_UP = Gauge "vipa_port_up" ["port"] Router Ports: "1 while the port has a link; absent where its driver cannot say."
    PORT_RECEIVED_PACKETS = Counter "vipa_port_received_packets_total" ["port"] Router Ports: "Packets that the port's driver has received."
    PORT_RECEIVED_BYTES = Counter "vipa_port_received_bytes_total" ["port"] Router Ports: "Bytes that the port's driver has received."
    PORT_SENT_PACKETS = Counter "vipa_port_sent_packets_total" ["port"] Router Ports: "Packets that the port's driver has sent."
    PORT_SENT_BYTES = Counter "vipa_port_sent_bytes_total" ["port"] Router Ports: "Bytes that the port's driver has sent."
    PORT_MISSED = Counter "vipa_port_missed_packets_total" ["port"] Router Ports: "Packets that the NIC dropped because no worker took them from its receive queue in time."
    PORT_RECEIVE_ERRORS = Counter "vipa_port_receive_errors_total" ["port"] Router Ports: "Frames that the NIC received damaged."
    PORT_SEND_ERRORS = Counter "vipa_port_send_errors_total" ["port"] Router Ports: "Packets that the NIC failed to send."
    PORT_NO_BUFFER = Counter "vipa_port_no_buffer_total" ["port"] Router Ports: "Times that the driver found no free packet buffer (mbuf) for a received packet."
    PORT_BUFFERS_FREE = Gauge "vipa_port_buffers_free" ["port"] Router Ports: "Packet buffers (mbufs) of the port that are free."
    PORT_BUFFERS = Gauge "vipa_port_buffers" ["port"] Router Ports: "Packet buffers (mbufs) of the port in all."

    WORKER_BUSY = Counter "vipa_worker_busy_seconds_total" ["worker"] Router Workers: "Time that the worker spent in turns of its loop that brought packets; its rate is the busy share."
    WORKER_TURNS = Counter "vipa_worker_turns_total" ["worker"] Router Workers: "Turns of the worker's loop."
    WORKER_BUSY_TURNS = Counter "vipa_worker_busy_turns_total" ["worker"] Router Workers: "Turns of the worker's loop that brought packets."
    WORKER_RECEIVED = Counter "vipa_worker_received_packets_total" ["worker"] Router Workers: "Packets that the worker has taken from its receive queues."

    PACKET_FATES = Counter "vipa_packet_fates_total" ["fate"] Router Names: "Packets by what became of them; docs/counters.md explains each fate."
    HELD_PACKETS = Gauge "vipa_held_packets" [] Router One: "Packets that workers hold back until their connection or neighbour is known."
    DATAPLANE_EVENTS = Counter "vipa_dataplane_events_total" ["event"] Router Names: "What workers count beside fates; docs/counters.md explains each event."
    CONTROL_EVENTS = Counter "vipa_control_events_total" ["event"] Router Names: "What the control thread counts; docs/counters.md explains each event."

    TABLE_ENTRIES = Gauge "vipa_table_entries" ["family"] Router Two: "Entries in the connection table, by address family."
    TABLE_CAPACITY = Gauge "vipa_table_capacity_entries" ["family"] Router Two: "Entries that the connection table has room for, by address family."
    TABLE_EVICTIONS = Counter "vipa_table_evictions_total" [] Router One: "Entries that made room for a newer connection in a full connection table."

    OWNED = Gauge "vipa_owned" ["vipa"] Router Vipas: "1 while this router owns the VIPA."
    REBUILDING = Gauge "vipa_rebuilding" ["vipa"] Router Vipas: "1 while this router collects the targets' reports for the VIPA after a takeover."
    FENCED = Gauge "vipa_fenced" ["vipa"] Router Vipas: "1 while this router owns the VIPA without a lease: no new connection is admitted."
    OWNER_KNOWN = Gauge "vipa_owner_known" ["vipa"] Router Vipas: "1 while this router knows an owner of the VIPA, itself or another."
    EPOCH = Gauge "vipa_epoch" ["vipa"] Router Vipas: "The number of the VIPA's ownership; it rises with every change of owner."
    BACKUPS_READY = Gauge "vipa_backups_ready" ["vipa"] Router Vipas: "Other routers with a rank for the VIPA that are linked to this one and may own it."
    OWNERSHIP_CHANGED = Gauge "vipa_ownership_change_time_seconds" ["vipa"] Router Vipas: "When the VIPA's epoch last rose as this router saw it, in seconds since 1970; its own start if it has not."
    FLAPPING = Gauge "vipa_flapping" ["vipa"] Router Vipas: "1 while the VIPA's owner changes again and again (five times within a minute)."
    ADDRESS_CONFLICT = Gauge "vipa_address_conflict" ["vipa"] Router Vipas: "1 while another station has claimed to have the VIPA's address."
    VIPA_OPENED = Counter "vipa_opened_connections_total" ["vipa"] Router Vipas: "Connections to the VIPA that this router has placed at a target."
    LEASE_MARGIN = Gauge "vipa_lease_margin_seconds" [] Router One: "Least time left of any lease of an owned VIPA; absent while this router owns none."
    LEASES_LOST = Counter "vipa_leases_lost_total" [] Router One: "Leases of owned VIPAs that a majority of the voters did not renew in time."
    TAKEOVERS = Counter "vipa_takeovers_total" ["trigger", "cause"] Router Names: "VIPAs that this router came to own, by what led to it (first, failure, takeback, handover) and its cause."
    TAKEOVER_TIME = Histogram "vipa_takeover_phase_seconds" ["phase"] Router Names: "How long the phases of takeovers took: detect, collect (grants of the voters), rebuild (reports of the targets)."

    FIT = Gauge "vipa_fit" [] Router One: "1 while this router finds itself fit to route."
    VOTERS = Gauge "vipa_voters" [] Router One: "Voters of the cluster."
    VOTERS_LINKED = Gauge "vipa_voters_linked" [] Router One: "Voters that are linked to this router, itself included if it is one."
    BEATS_UNANSWERED = Gauge "vipa_voter_beats_unanswered" ["voter"] Router Peers: "Beats of this owner that the voter has not answered yet, the most of any VIPA; 0 or 1 is normal."
    LINK_UP = Gauge "vipa_link_up" ["peer"] Both Peers: "1 while there is a link to the node."
    LINK_CHANGES = Counter "vipa_link_changes_total" ["peer"] Both Peers: "Links to the node that came up or went down."
    LINKS_REFUSED = Counter "vipa_links_refused_total" [] Router One: "Links that were refused."

    SERVICE_TARGETS = Gauge "vipa_service_targets" ["vipa", "service"] Router Services: "Candidates of the service."
    SERVICE_TARGETS_FIT = Gauge "vipa_service_targets_fit" ["vipa", "service"] Router Services: "Candidates of the service that are fit for new connections."
    TARGET_OPENED = Counter "vipa_target_opened_connections_total" ["target"] Router Targets: "Connections that this router has placed at the target."
    TARGET_LINKED = Gauge "vipa_target_linked" ["target"] Router Targets: "1 while the target's agent is linked to this router."
    TARGET_HEADROOM = Gauge "vipa_target_headroom_ratio" ["target"] Router Targets: "How much more the target's host can take by its agent's word: 1 when it is idle, a sixteenth when it is full."
    TARGET_SERVED = Gauge "vipa_target_served_ratio" ["target"] Router Targets: "Part of the connections sent to the target lately that its applications took; absent where too few came to tell."
    TARGET_LOG_LAG = Gauge "vipa_target_log_lag_vipas" ["target"] Router Targets: "VIPAs of which this router has not yet read all that the target reports."

    CERTIFICATE_EXPIRY = Gauge "vipa_certificate_expiry_time_seconds" ["certificate"] Both Two: "When the certificate (the node's, or the earliest of its authorities') expires, in seconds since 1970."
    CONFIG_RELOAD_OK = Gauge "vipa_config_last_reload_successful" [] Both One: "1 if the configuration was taken up when it was last read."
    CONFIG_RELOAD_TIME = Gauge "vipa_config_last_reload_success_time_seconds" [] Both One: "When the configuration in force was taken up, in seconds since 1970."
    CONFIG_DIFFERENCES = Gauge "vipa_config_differences" ["peer"] Router Peers: "Settings of VIPAs that the other router has otherwise than this one, when it last answered; all VIPAs are asked for by turns, one every two seconds."
    AUDITS = Counter "vipa_audits_total" [] Router One: "Comparisons of the connection table with what a target holds."
    AUDIT_DIFFERENCES = Counter "vipa_audit_differences_total" [] Router One: "Connections that audits found in the table otherwise than at the target."
    AUDIT_REPAIRED = Counter "vipa_audit_repairs_total" [] Router One: "Audits after which a target's connections were read anew."

    AGENT_BEATS = Counter "vipa_agent_beats_answered_total" ["peer"] Agent Peers: "Beats of routers that this agent has answered as a voter."
    AGENT_VOTES = Counter "vipa_agent_ballots_answered_total" ["peer"] Agent Peers: "Ballots of routers that this agent has answered as a voter."
    AGENT_TOLD = Counter "vipa_agent_connections_told_total" ["peer"] Agent Peers: "Records of connections, opened or closed, that were sent to the router."
    AGENT_OBSERVER = Gauge "vipa_agent_observer" ["observer"] Agent Two: "1 for the way in which connections are followed, 0 for the other: bpf, or sock_diag alone."
    AGENT_OVERFLOWS = Counter "vipa_agent_ring_overflows_total" [] Agent One: "Times that the BPF ring was full, so that the kernel's lists had to be read."
    AGENT_REPAIRED = Counter "vipa_agent_observer_repairs_total" [] Agent One: "Connections about which BPF and the kernel's lists differed, and that were put right."
    AGENT_CONNECTIONS = Gauge "vipa_agent_connections" ["vipa"] Agent Vipas: "Connections to the VIPA that this host holds."
    AGENT_LOG_RECORDS = Gauge "vipa_agent_log_records" ["vipa"] Agent Vipas: "Records of the VIPA's connection log that are kept for routers that are behind."
    AGENT_VIPAS = Gauge "vipa_agent_vipas" [] Agent One: "VIPAs that the routers have this host put on its interface, usually lo."
    AGENT_LISTENERS = Gauge "vipa_agent_listeners" ["vipa"] Agent Vipas: "Ports of the VIPA on which an application of this host listens."
    AGENT_HEADROOM = Gauge "vipa_agent_headroom_ratio" [] Agent One: "How much more this host can take: 1 when it is idle, a sixteenth when it is full."
    AGENT_DRAINING = Gauge "vipa_agent_draining" [] Agent One: "1 while this host is drained of its connections."
    AGENT_CHECKS = Gauge "vipa_agent_check_passing" ["check"] Agent Names: "1 while the configured check passes."
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_there_once_and_by_the_conventions() {
        let names: BTreeSet<&str> = ALL.iter().map(|about| about.name).collect();
        assert_eq!(names.len(), ALL.len());
        for About { name, kind, labels, help, .. } in ALL {
            assert!(name.starts_with("vipa_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                *kind == ValueKind::Counter,
                "{name}: counters end in _total, others do not"
            );
            assert_eq!(name.ends_with("_info"), *kind == ValueKind::Info, "{name}");
            assert!(
                labels.iter().all(|label| !["state", "status", "stance", "le", "quantile"].contains(label)),
                "{name}"
            );
            assert!(
                help.ends_with('.') && help.starts_with(|first: char| first.is_uppercase() || first.is_ascii_digit()),
                "{name}: its help is a sentence"
            );
            assert!(
                !["_ms", "_us", "_ns", "_kb", "_mb", "_percent"].iter().any(|unit| name.ends_with(unit)),
                "{name}: base units"
            );
        }
    }

    #[test]
    fn one_series_has_no_label_and_more_have_one() {
        for About { name, labels, bound, kind, .. } in ALL.iter().filter(|about| about.kind != ValueKind::Info) {
            assert_eq!(labels.is_empty(), *bound == Bound::One, "{name} ({kind:?})");
        }
    }
}
