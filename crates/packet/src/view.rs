//! Numbers at an offset, in network byte order. A read past the end is `None`, a write past the end is not made.

#[inline(always)]
pub(crate) fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

#[inline(always)]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    chunk(bytes, at).map(|two| u16::from_be_bytes(*two))
}

#[inline(always)]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    chunk(bytes, at).map(|four| u32::from_be_bytes(*four))
}

#[inline(always)]
pub(crate) fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    chunk(bytes, at).map(|sixteen| u128::from_be_bytes(*sixteen))
}

/// Copies `from` to `at`; false, and nothing written, when it does not fit.
#[inline(always)]
pub(crate) fn put(bytes: &mut [u8], at: usize, from: &[u8]) -> bool {
    match bytes.get_mut(at..).and_then(|rest| rest.get_mut(..from.len())) {
        Some(place) => {
            place.copy_from_slice(from);
            true
        }
        None => false,
    }
}
