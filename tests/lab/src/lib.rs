//! Whole clusters in network namespaces, on real kernels' TCP stacks, for the whole-system tests and the demo.
//!
//! [`cluster`] is the whole; [`netns`] makes the network, [`process`] runs what lives in it, [`load`] is the client's
//! and the servers' work, [`ledger`] counts what got lost,
//! [`replay`] stands in for a kernel with more connections than there is room for, [`chaos`] breaks whatever may break,
//! [`endurance`] goes on for long, [`scale`] has many VIPAs, and [`hostile`] is a node that means harm.

pub mod chaos;
pub mod cluster;
pub mod endurance;
pub mod hostile;
pub mod load;
pub mod netns;
pub mod packet_ledger;
pub mod process;
pub mod programs;
pub mod replay;
pub mod scale;
