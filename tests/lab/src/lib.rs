//! Whole clusters in network namespaces, on real kernels' TCP stacks, for the whole-system tests and the demo.
//!
//! [`cluster`] is a whole cluster. [`netns`] makes its network, [`process`] runs the processes in it, [`load`] is the
//! clients' and servers' traffic, and [`packet_ledger`] counts lost packets. [`replay`] stands in for a kernel with more
//! connections than the machine has room for, [`chaos`] injects faults, [`endurance`] runs for long, [`scale`] has many
//! VIPAs, and [`hostile`] is a hostile node.

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
