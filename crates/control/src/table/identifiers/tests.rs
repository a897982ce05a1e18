use super::*;

const NOW: Moment = Moment(7_000_000_000);

fn at(newest: u64, seen: u64) -> Versions {
    Versions { newest, seen }
}

fn given(count: usize) -> Identifiers<VipaId> {
    let mut identifiers = Identifiers::default();
    (0..count).for_each(|_| _ = identifiers.take().unwrap());
    identifiers
}

#[test]
fn an_identifier_is_free_after_every_step_and_not_before() {
    let (mut ids, id, mut tasks) = (given(2), VipaId(1), Tasks::default());
    let hold = tasks.hold();
    assert!(ids.retire(id, at(5, 5)) && !ids.retire(id, at(6, 6)));
    assert_eq!(ids.advance(at(5, 5)), Some(6), "a snapshot without it is to be published");
    assert!(!ids.has_drained());
    assert_eq!(ids.advance(at(6, 5)), None, "it is published; a worker has not moved on");
    assert!(!ids.has_drained());
    ids.advance(at(6, 6));
    assert!(ids.has_drained());
    assert_eq!(ids.begin_walk(), [id].into());
    ids.end_walk(|_| true, NOW);
    assert!(ids.has_drained(), "an entry has it still");
    assert_eq!(ids.begin_walk(), [id].into());
    ids.end_walk(|_| false, NOW);
    assert!(!ids.has_drained() && ids.over(NOW + QUARANTINE - Duration::from_nanos(1)).is_empty());
    assert_eq!(ids.over(NOW + QUARANTINE), [id]);
    ids.vacate(id, at(9, 9), tasks.renew());
    assert!(ids.over(NOW + QUARANTINE).is_empty());
    assert_eq!(ids.advance(at(9, 9)), Some(11));
    assert_eq!(ids.advance(at(11, 10)), None);
    assert!(ids.release(at(11, 10), u64::MAX).is_empty(), "a worker has moved on once only");
    assert!(ids.release(at(11, 11), tasks.oldest()).is_empty(), "a task that began before goes on");
    drop(hold);
    let later = tasks.hold();
    assert_eq!(ids.release(at(11, 11), tasks.oldest()), [id], "what began later cannot have it");
    assert_eq!((ids.take(), ids.take()), (Some(id), Some(VipaId(2))));
    assert_eq!(ids.counts(), IdentifierCounts { retired: 1, reused: 1, exhausted: 0 });
    drop(later);
}

#[test]
fn what_is_named_again_on_its_way_stays_and_begins_anew_the_next_time() {
    let mut ids = given(1);
    let id = VipaId(0);
    ids.retire(id, at(5, 5));
    ids.advance(at(6, 6));
    ids.begin_walk();
    ids.revive(id);
    ids.retire(id, at(6, 6));
    ids.end_walk(|_| false, NOW);
    assert!(ids.over(NOW + QUARANTINE * 2).is_empty(), "the walk began before it was retired");
    ids.advance(at(7, 7));
    ids.begin_walk();
    ids.end_walk(|_| false, NOW);
    ids.revive(id);
    assert!(ids.over(NOW + QUARANTINE * 2).is_empty());
    ids.retire(id, at(7, 7));
    ids.advance(at(8, 8));
    ids.begin_walk();
    ids.end_walk(|_| false, NOW);
    ids.keep(id);
    assert!(ids.over(NOW + QUARANTINE * 2).is_empty() && ids.has_drained(), "control has it still");
}

#[test]
fn there_are_as_many_as_the_table_tells_apart() {
    let mut ids = given(MAX_VIPAS);
    assert_eq!((ids.available(), ids.take()), (0, None));
    assert_eq!(ids.counts().exhausted, 1);
    ids.retire(VipaId(77), at(1, 1));
    ids.advance(at(2, 2));
    ids.begin_walk();
    ids.end_walk(|_| false, NOW);
    ids.vacate(VipaId(77), at(2, 2), 0);
    ids.release(at(4, 4), 1);
    assert_eq!((ids.available(), ids.take(), ids.take()), (1, Some(VipaId(77)), None));
}

#[test]
fn the_oldest_task_counts_and_ended_ones_take_no_room() {
    let mut tasks = Tasks::default();
    let first = tasks.hold();
    for _ in 0..1_000 {
        let _ended = tasks.hold();
        tasks.renew();
    }
    assert_eq!((tasks.oldest(), tasks.earlier.len() <= 2), (0, true));
    drop(first);
    assert_eq!(tasks.renew(), 1_000);
    assert_eq!((tasks.oldest(), tasks.earlier.len()), (1_001, 0));
}
