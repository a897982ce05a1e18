//! The network around the packet path: which target gets which packets and how it is reached, neighbours, announcements,
//! and whether this router is fit to route.

pub(crate) mod advertiser;
pub(crate) mod announcements;
pub(crate) mod conflicts;
pub(crate) mod eligibility;
pub(crate) mod hooks;
pub(crate) mod kernel_routes;
pub(crate) mod neighbour_prompts;
pub(crate) mod neighbours;
pub(crate) mod own_kernel;
pub(crate) mod path_mtu;
pub(crate) mod paths;
pub(crate) mod port_liveness;
pub(crate) mod probes;
pub(crate) mod publishing;
pub(crate) mod reachability;
pub(crate) mod responsiveness;
pub(crate) mod routing_state;
pub(crate) mod self_check;
pub(crate) mod weighted_active;
