use proptest::prelude::*;

use super::*;

/// RFC 1071 as it reads: one word at a time, carries added back at once.
fn by_the_book(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn the_example_of_rfc_1071_sums_to_its_answer() {
    let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    assert_eq!(sum.fold(), 0xddf2);
}

#[test]
fn the_example_of_rfc_1624_gives_zero_and_not_ones() {
    assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn a_known_ipv4_header_is_valid_until_a_bit_flips() {
    let mut header = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8,
        0x00, 0xc7,
    ];
    assert!(ipv4_header_is_valid(&header) && is_valid(&header));
    header[8] ^= 1;
    assert!(!ipv4_header_is_valid(&header) && !is_valid(&header));
}

#[test]
fn a_header_of_zeros_is_not_valid() {
    assert!(!ipv4_header_is_valid(&[0; 20]));
    assert!(ipv4_header_is_valid(&[0xff; 20]), "ones sum to ones");
}

proptest! {
    #[test]
    fn the_sum_is_the_books(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert_eq!(Sum::default().bytes(&bytes).fold(), by_the_book(&bytes));
    }

    #[test]
    fn a_sum_of_any_length_folds_as_the_book_adds(sum in any::<u64>()) {
        prop_assert_eq!(Sum(sum).fold(), by_the_book(&sum.to_be_bytes()));
    }

    #[test]
    fn the_unrolled_header_check_is_the_general_one(header in any::<[u8; 20]>(), valid in any::<bool>()) {
        let mut header = header;
        if valid {
            header[10..12].fill(0);
            let checksum = of(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        prop_assert_eq!(ipv4_header_is_valid(&header), is_valid(&header));
        prop_assert!(!valid || ipv4_header_is_valid(&header));
    }

    #[test]
    fn an_update_is_a_recomputation(mut bytes in any::<[u8; 20]>(), at in 0..8usize, new in any::<u32>()) {
        // The last byte is one, so that no sum is zero: RFC 1624 promises nothing for a message of zeros.
        bytes[19] = 1;
        let before = of(&bytes);
        let (place, tail) = (2 * at, 2 * at + 4);
        let old = u32::from_be_bytes(bytes[place..tail].try_into().expect("four bytes"));
        bytes[place..tail].copy_from_slice(&new.to_be_bytes());
        bytes[19] = 1;
        let after = of(&bytes);
        prop_assume!(tail < 20);
        prop_assert_eq!(update_address(before, old, new), after);
        prop_assert_eq!(update_address(after, new, old), before, "undone");
        let high = update(before, (old >> 16) as u16, (new >> 16) as u16);
        prop_assert_eq!(update(high, old as u16, new as u16), after);
    }
}
