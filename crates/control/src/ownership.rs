//! Who owns which VIPA, as the cluster decides it: takeovers, votes, and what a restart and unsteady peers mean for them.

pub(crate) mod peer_lists;
pub(crate) mod restart_gap;
pub(crate) mod steadiness;
pub(crate) mod takeovers;
pub(crate) mod voting;
