//! Whole clusters in network namespaces, on real kernels' TCP stacks, for the whole-system tests and the demo.
//!
//! [`cluster`] is the whole; [`netns`] makes the network, [`process`] runs what lives in it, [`load`] is the client's
//! and the servers' work, and [`ledger`] counts what got lost.

pub mod cluster;
pub mod ledger;
pub mod load;
pub mod netns;
pub mod process;
pub mod programs;
