//! The installed DPDK (22.11 or newer), as it is: bindings to the few functions Vipa calls and to a C shim for what
//! DPDK only has as inline code or as structs that change between releases. No logic; `vipa-dpdk` makes it safe.
#![allow(non_camel_case_types, unreachable_pub, reason = "the names are DPDK's")]

use std::ffi::c_void;
use std::mem::offset_of;

/// The first part of an mbuf's first cache line, the only part Vipa looks into; only ever behind a pointer.
///
/// The layout is checked below against the installed release.
#[repr(C)]
#[derive(Debug)]
pub struct rte_mbuf {
    /// Where the buffer begins.
    pub buf_addr: *mut c_void,
    _iova_or_next: u64,
    /// Where the frame begins in the buffer.
    pub data_off: u16,
    pub refcnt: u16,
    pub nb_segs: u16,
    pub port: u16,
    pub ol_flags: u64,
    _packet_type: u32,
    /// Bytes of the frame in all segments.
    pub pkt_len: u32,
    /// Bytes of the frame in this segment.
    pub data_len: u16,
    _vlan_tci: u16,
    _hash: [u32; 2],
    _vlan_tci_outer: u16,
    /// Bytes of the buffer.
    pub buf_len: u16,
}

/// Only ever behind a pointer.
#[repr(C)]
#[derive(Debug)]
pub struct rte_mempool {
    _opaque: [u8; 0],
}

const _: () = {
    assert!(offset_of!(rte_mbuf, buf_addr) == VIPA_MBUF_BUF_ADDR as usize);
    assert!(offset_of!(rte_mbuf, data_off) == VIPA_MBUF_DATA_OFF as usize);
    assert!(offset_of!(rte_mbuf, refcnt) == VIPA_MBUF_REFCNT as usize);
    assert!(offset_of!(rte_mbuf, nb_segs) == VIPA_MBUF_NB_SEGS as usize);
    assert!(offset_of!(rte_mbuf, port) == VIPA_MBUF_PORT as usize);
    assert!(offset_of!(rte_mbuf, ol_flags) == VIPA_MBUF_OL_FLAGS as usize);
    assert!(offset_of!(rte_mbuf, pkt_len) == VIPA_MBUF_PKT_LEN as usize);
    assert!(offset_of!(rte_mbuf, data_len) == VIPA_MBUF_DATA_LEN as usize);
    assert!(offset_of!(rte_mbuf, buf_len) == VIPA_MBUF_BUF_LEN as usize);
};

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
