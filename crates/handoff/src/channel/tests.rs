use vipa_balance::ClusterKey;

use super::*;
use crate::{Count, RouteLists};

fn channel(workers: usize) -> (ControlChannel, Vec<WorkerChannel>) {
    open(Arc::new(Routes::empty(ClusterKey::new([0; 16]))), workers)
}

fn generation(n: u64) -> Arc<Routes> {
    Arc::new(Routes::build(n, ClusterKey::new([0; 16]), RouteLists::default()))
}

#[test]
fn every_worker_sees_what_was_published_last_and_old_routes_go_when_all_have_moved_on() {
    let (control, mut workers) = channel(2);
    control.publish(generation(1));
    control.publish(generation(2));
    assert!(workers.iter_mut().all(|worker| worker.routes.snapshot().generation == 2));
    workers[0].routes.quiescent();
    assert_eq!(control.reclaim(), 2, "worker 1 may still look at either");
    workers[1].routes.quiescent();
    assert_eq!(control.reclaim(), 0);
    assert_eq!(control.routes().generation, 2);
}

#[test]
fn no_more_routes_are_taken_than_are_kept_for_a_worker_that_stands_still() {
    let (control, mut workers) = channel(2);
    let mut published = 0;
    while control.takes_routes() {
        published += 1;
        control.publish(generation(published));
        workers[0].routes.quiescent();
    }
    assert_eq!((published, control.reclaim()), (SNAPSHOTS as u64, SNAPSHOTS));
    workers[1].routes.quiescent();
    assert!(control.takes_routes());
    assert_eq!(control.reclaim(), 0);
}

#[test]
fn control_reads_every_workers_notes_and_full_boxes_count_what_they_refuse() {
    let (control, workers) = channel(2);
    let note = |n: u8| Note::Neighbour { port: PortId(0), address: [10, 0, 0, n].into(), mac: Mac([n; 6]) };
    workers[1].shared.notes.try_send(note(1)).unwrap();
    workers[0].shared.notes.try_send(note(2)).unwrap();
    assert_eq!(control.notes().collect::<Vec<_>>(), [note(2), note(1)]);
    assert_eq!(control.notes().next(), None);
    let refused = (0..NOTES + 3).filter(|_| workers[0].shared.notes.try_send(note(3)).is_err()).count();
    assert_eq!((refused, control.notes_refused()), (3, 3));
}

#[test]
fn the_first_worker_gets_controls_frames_until_its_box_is_full() {
    let (control, workers) = channel(2);
    let frame = Frame::new(PortId(1), b"hello");
    assert!(control.send(frame));
    assert_eq!(workers[0].shared.frames.try_receive(), Some(frame));
    assert_eq!((frame.port(), frame.bytes()), (PortId(1), &b"hello"[..]));
    assert!((0..FRAMES).all(|_| control.send(frame)));
    assert!(!control.send(frame));
    assert!(workers[1].shared.frames.is_empty());
}

#[test]
fn totals_sum_over_the_workers_and_stop_reaches_all() {
    let (control, workers) = channel(3);
    workers.iter().for_each(|worker| worker.shared.counters.add(Count::Sent, 2));
    assert_eq!(control.totals().count(Count::Sent), 6);
    control.stop();
    assert!(workers.iter().all(|worker| worker.stop.is_raised()));
}
