use super::*;

const LIMIT: u64 = 64 << 10;

fn open(folder: &Path) -> (Journal<String>, Vec<String>) {
    Journal::open(folder, "events", LIMIT).unwrap()
}

fn text(number: u32) -> String {
    format!("entry {number}")
}

#[test]
fn what_was_written_is_there_after_a_restart_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, before) = open(folder.path());
    assert!(before.is_empty());
    (0..100).for_each(|number| journal.append(&text(number)));
    drop(journal);
    let (mut journal, before) = open(folder.path());
    assert_eq!(before, (0..100).map(text).collect::<Vec<_>>());
    journal.append(&text(100));
    drop(journal);
    assert_eq!(open(folder.path()).1.len(), 101);
}

#[test]
fn a_tail_that_a_power_failure_left_is_cut_off_and_what_follows_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path());
    (0..3).for_each(|number| journal.append(&text(number)));
    drop(journal);
    let path = folder.path().join("events.journal");
    let whole = fs::read(&path).unwrap();
    for cut in 1..20 {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let (mut journal, before) = open(folder.path());
        assert_eq!(before, [text(0), text(1)], "cut by {cut}");
        journal.append(&text(7));
        drop(journal);
        assert_eq!(open(folder.path()).1, [text(0), text(1), text(7)], "cut by {cut}");
    }
}

#[test]
fn a_damaged_line_costs_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path());
    (0..3).for_each(|number| journal.append(&text(number)));
    drop(journal);
    let path = folder.path().join("events.journal");
    let damaged = fs::read_to_string(&path).unwrap().replace("entry 1", "entry 9");
    fs::write(&path, damaged).unwrap();
    assert_eq!(open(folder.path()).1, [text(0), text(2)]);
}

#[test]
fn a_file_of_another_release_or_of_somebody_else_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.journal");
    for strange in
        ["{\"version\":9,\"journal\":\"events\"}\n", "{\"version\":1,\"journal\":\"others\"}\n", "\0\0\0", ""]
    {
        fs::write(&path, strange).unwrap();
        let (mut journal, before) = open(folder.path());
        assert!(before.is_empty());
        journal.append(&text(1));
        drop(journal);
        assert_eq!(open(folder.path()).1, [text(1)], "{strange:?}");
    }
}

#[test]
fn both_files_are_bounded_and_the_latest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path());
    let mut lost = 0;
    for number in 0..20_000 {
        journal.append(&text(number));
        lost += journal.take_lost();
    }
    drop(journal);
    let size = |name: &str| fs::metadata(folder.path().join(name)).map_or(0, |file| file.len());
    assert!(size("events.journal") + size("events.journal.1") <= LIMIT);
    assert!(size("events.journal.1") > LIMIT / 4, "the one before is nearly full");
    let entries = open(folder.path()).1;
    assert!(entries.is_sorted_by_key(|entry| entry[6..].parse::<u32>().unwrap()));
    assert!(lost > 0 || entries.last() == Some(&text(19_999)));
}
