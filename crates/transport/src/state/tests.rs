use tempfile::{TempDir, tempdir};

use super::*;

fn opened(folder: &TempDir) -> Result<Vec<u64>, StateFileError> {
    StateFile::open(folder.path(), Kind::Votes).map(|(_, votes)| votes)
}

/// A folder with a file of these votes, and the file's text.
fn stored(votes: &[u64]) -> (TempDir, Vec<u8>) {
    let folder = tempdir().unwrap();
    let (file, none) = StateFile::open(folder.path(), Kind::Votes).unwrap();
    assert!(none.is_empty());
    file.store(votes).unwrap();
    let text = fs::read(folder.path().join("votes.json")).unwrap();
    (folder, text)
}

fn write(folder: &TempDir, text: &[u8]) {
    fs::write(folder.path().join("votes.json"), text).unwrap();
}

#[test]
fn votes_are_there_after_a_restart_and_the_last_store_counts() {
    let (folder, _) = stored(&[1]);
    let (file, _) = StateFile::<u64>::open(folder.path(), Kind::Votes).unwrap();
    file.store(&[2, 3]).unwrap();
    assert_eq!(opened(&folder).unwrap(), [2, 3]);
    file.store(&[]).unwrap();
    assert!(opened(&folder).unwrap().is_empty());
}

#[test]
fn a_file_is_json_with_a_version_and_a_checksum() {
    let (_folder, text) = stored(&[5]);
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&json["version"], &json["entries"]), (&1.into(), &serde_json::json!([5])));
    assert_eq!(json["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn every_file_with_a_byte_less_or_another_byte_is_damaged_and_never_an_empty_list() {
    let (folder, text) = stored(&[5, 6]);
    for length in 0..text.len() {
        write(&folder, &text[..length]);
        assert!(matches!(opened(&folder), Err(StateFileError::Damaged { .. })), "cut to {length} bytes");
    }
    for place in 0..text.len() {
        let mut other = text.clone();
        other[place] ^= 1;
        write(&folder, &other);
        assert!(opened(&folder).is_err(), "another byte at {place}");
    }
    write(&folder, &text);
    assert_eq!(opened(&folder).unwrap(), [5, 6]);
}

#[test]
fn who_meets_a_damaged_file_is_told_which_and_what_to_do() {
    let (folder, _) = stored(&[5]);
    write(&folder, b"[1, ");
    let sentence = opened(&folder).unwrap_err().to_string();
    assert!(sentence.contains("votes.json is damaged") && sentence.contains("remove the file while"), "{sentence}");
}

#[test]
fn the_bare_list_of_earlier_releases_is_read_once_and_rewritten_with_a_checksum() {
    let (folder, text) = stored(&[7]);
    write(&folder, b"[\n  7\n]");
    assert_eq!(opened(&folder).unwrap(), [7]);
    assert_eq!(fs::read(folder.path().join("votes.json")).unwrap(), text);
    assert_eq!(opened(&folder).unwrap(), [7]);
}

#[test]
fn a_bare_list_that_is_damaged_or_has_what_cannot_be_is_refused_and_left_as_it_is() {
    let folder = tempdir().unwrap();
    let check = |entry: &u64| if *entry < 100 { Ok(()) } else { Err(format!("{entry} is too large")) };
    for text in [b"[\n  7,\n".as_slice(), b"[\n  x\n]", b"[\n  777\n]", b"["] {
        write(&folder, text);
        let error = StateFile::open_checked(folder.path(), Kind::Votes, check).unwrap_err().to_string();
        assert!(error.contains("votes.json is damaged (") && error.contains("put a copy back"), "{error}");
        assert_eq!(fs::read(folder.path().join("votes.json")).unwrap(), text);
    }
}

#[test]
fn a_later_format_is_refused() {
    let folder = tempdir().unwrap();
    write(&folder, b"{\"version\":2,\"sha256\":\"\",\"entries\":\n[]}\n");
    assert!(matches!(opened(&folder), Err(StateFileError::Later { found: 2, .. })));
}

#[test]
fn an_entry_that_cannot_be_is_damage() {
    let (folder, _) = stored(&[7, u64::MAX]);
    let check = |entry: &u64| if *entry < 100 { Ok(()) } else { Err(format!("{entry} is too large")) };
    let error = StateFile::open_checked(folder.path(), Kind::Votes, check).unwrap_err().to_string();
    assert!(error.contains("votes.json is damaged (18446744073709551615 is too large); put a copy back"), "{error}");
    let (folder, _) = stored(&[7]);
    assert_eq!(StateFile::open_checked(folder.path(), Kind::Votes, check).unwrap().1, [7]);
}

#[test]
fn one_value_is_kept_with_a_version_and_a_checksum() {
    let text = encode_value(&"x".to_owned()).unwrap();
    assert!(text.starts_with(b"{\"version\":1,\"sha256\":\""));
    assert_eq!(decode_value::<String>(&text), Ok("x".to_owned()));
    for place in 0..text.len() {
        let mut other = text.clone();
        other[place] ^= 1;
        assert!(decode_value::<String>(&other).is_err(), "another byte at {place}");
    }
    assert_eq!(decode_value::<u64>(b"[1, 2]"), Err("it has not one entry".into()));
    let later = decode_value::<u64>(b"{\"version\":9,\"sha256\":\"\",\"entries\":\n[]}\n").unwrap_err();
    assert!(later.contains("format 9"), "{later}");
}

#[test]
fn a_half_written_store_leaves_the_old_votes() {
    let (folder, _) = stored(&[7]);
    fs::write(folder.path().join("votes.json.new"), "{").unwrap();
    assert_eq!(opened(&folder).unwrap(), [7]);
}

#[test]
fn votes_in_the_folder_of_an_earlier_release_are_not_forgotten() {
    let (former, _) = stored(&[1]);
    let folder = tempdir().unwrap();
    let refused = check_left_behind(folder.path(), former.path()).unwrap_err().to_string();
    assert!(refused.contains(&format!("mv {}/* {}/", former.path().display(), folder.path().display())), "{refused}");
    fs::rename(former.path().join("votes.json"), folder.path().join("votes.json")).unwrap();
    check_left_behind(folder.path(), former.path()).unwrap();
    // A folder that somebody has named is that person's choice.
    check_former_state(former.path()).unwrap();
}

#[test]
fn a_folder_has_one_user_and_a_second_one_is_told_whose_it_is() {
    let folder = tempdir().unwrap();
    assert_eq!(StateLock::holder(folder.path()).unwrap(), None);
    let first = StateLock::take(folder.path()).unwrap();
    let refused = StateLock::take(folder.path()).unwrap_err().to_string();
    let holder = format!("is in use by process {} (", std::process::id());
    assert!(refused.contains(&holder) && refused.contains("`node.state_dir` of its own"), "{refused}");
    assert!(StateLock::holder(folder.path()).unwrap().is_some());
    drop(first);
    assert_eq!(StateLock::holder(folder.path()).unwrap(), None);
    StateLock::take(folder.path()).unwrap();
}
