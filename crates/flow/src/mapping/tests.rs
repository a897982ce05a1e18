use super::*;

const BYTES: usize = 2 * HUGEPAGE + 3 * PAGE;

#[test]
fn a_reservation_begins_at_a_hugepage_and_is_as_long_as_asked() {
    for bytes in [PAGE, HUGEPAGE, BYTES] {
        let mapping = Mapping::reserve(bytes).unwrap();
        assert_eq!((mapping.start().align_offset(HUGEPAGE), mapping.bytes()), (0, bytes));
    }
}

#[test]
fn what_was_split_is_one_behind_the_other_and_each_part_lives_by_itself() {
    let (first, second) = Mapping::reserve(BYTES).unwrap().on_ordinary_pages().unwrap().split_at(HUGEPAGE);
    assert_eq!((first.bytes(), second.bytes()), (HUGEPAGE, BYTES - HUGEPAGE));
    assert_eq!(second.start().addr().get() - first.start().addr().get(), HUGEPAGE);
    drop(first);
    // SAFETY: the last byte of a mapping that still exists and is writable.
    let last = unsafe { second.start().add(second.bytes() - 1) };
    // SAFETY: as above; only this thread uses it.
    unsafe { last.write_volatile(7) };
    // SAFETY: as above.
    assert_eq!(unsafe { last.read_volatile() }, 7);
}

#[test]
fn more_hugepages_than_there_are_are_refused() {
    // 16 TB.
    assert!(Mapping::reserve(1 << 44).unwrap().on_hugepages().is_err());
}
