use std::time::Duration;

use vipa_cluster::{Settings, Stored, Timing};
use vipa_model::Incarnation;

use super::*;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("vipa-recorder-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn router() -> Router {
    let settings = Settings {
        cluster: "recorded".into(),
        key: vipa_protocol::KeyDigest::default(),
        me: "r1".parse().unwrap(),
        addresses: Vec::new(),
        incarnation: Incarnation(1),
        voters: vec!["r1".parse().unwrap()].into(),
        timing: Timing::of_lease(Duration::from_millis(100)),
        vipas: Vec::new(),
    };
    Router::new(settings, Stored::default(), Moment(1))
}

/// Has it go through so many events, each of about a kilobyte.
fn live(recorder: &mut Recorder, router: &mut Router, events: u64) {
    for moment in 0..events {
        let (now, mut out) = (Moment(10 + moment), Vec::new());
        let event = Event::Unfit { why: format!("{moment:01000}") };
        recorder.event(now, &event, router);
        router.handle(now, event, &mut out);
        recorder.outputs(&out);
    }
}

/// The events of a file, each of which leads a router to what is in the file.
fn replayed(file: &Path) -> usize {
    let bytes = fs::read(file).unwrap();
    let mut recording = recording::Recording::read(&bytes).unwrap();
    let mut count = 0;
    while let Some(step) = recording.step().unwrap() {
        let mut out = Vec::new();
        recording.router.handle(step.at, step.event, &mut out);
        assert_eq!(Some(out), step.outputs);
        count += 1;
    }
    count
}

#[test]
fn the_newest_events_are_in_two_files_of_bounded_size_that_each_stand_for_themselves() {
    let folder = folder("bounded");
    let (mut recorder, mut router) = (Recorder::new(folder.clone()), router());
    assert!(recorder.stop().is_err());
    recorder.start(1, &router, Moment(1)).unwrap();
    assert_eq!(recorder.file(), Some(folder.join(FILE)));
    assert!(recorder.start(1, &router, Moment(1)).unwrap_err().contains("already"));
    live(&mut recorder, &mut router, 3000);
    assert_eq!(recorder.counts(), [("record.events".into(), 3000), ("record.failed".into(), 0)]);
    drop(recorder);
    for file in [FILE, FILE_BEFORE] {
        assert!(fs::metadata(folder.join(file)).unwrap().len() < 600 << 10, "{file}");
    }
    let (now, before) = (replayed(&folder.join(FILE)), replayed(&folder.join(FILE_BEFORE)));
    assert!(now > 0 && before > 100 && now + before < 1000, "{now} and {before}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_disk_that_takes_nothing_ends_the_recording_and_nothing_else() {
    let folder = folder("refused");
    let (mut recorder, mut router) = (Recorder::new(folder.join("not-there")), router());
    recorder.start(64, &router, Moment(1)).unwrap();
    // The writer needs a moment to find out.
    for _ in 0..1000 {
        live(&mut recorder, &mut router, 1);
        recorder.hand_over();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((recorder.file(), recorder.counts()[1].1), (None, 1));
    assert!(recorder.start(0, &router, Moment(1)).unwrap_err().contains("MB"));
    fs::remove_dir_all(folder).unwrap();
}
