//! What nodes say to each other (`message`), how it is put into bytes (`wire`), and what `vipactl` asks a router
//! (`admin`). Pure.

#![forbid(unsafe_code)]

pub mod message;

pub use message::*;
