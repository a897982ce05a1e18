use std::net::Ipv4Addr;

use vipa_model::Epoch;
use vipa_protocol::Trigger;

use super::*;

const VIPA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("vipa-takeovers-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn report(epoch: u64) -> TakeoverReport {
    TakeoverReport {
        vipa: VIPA,
        epoch: Epoch(epoch),
        trigger: Trigger::Failure,
        cause: vipa_protocol::OwnershipCause::Silent { ms: 300 },
        predecessor: None,
        detect_us: 1,
        collect_us: 2,
        rebuild_us: 3,
        targets_answered: 2,
        targets_expected: 3,
        targets_warm: 1,
        connections_reported: 7,
    }
}

fn take_over(takeovers: &mut Takeovers, epoch: u64) {
    let counted = |_| VipaTotals::default();
    takeovers.begin((VIPA, VipaId(0), Epoch(epoch)), counted(VipaId(0)), &Arrived::new(), Moment::ZERO);
    takeovers.counted(VIPA, Epoch(epoch), 5);
    takeovers.finish(report(epoch), counted, Moment(1_000));
    assert_eq!(takeovers.completed(counted, Moment(1_000)).len(), 1);
}

#[tokio::test]
async fn a_report_waits_for_its_count_and_its_released_packets_and_has_its_own_vipas_figures() {
    let folder = folder("figures");
    let mut takeovers = Takeovers::open(&folder);
    let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
    let none = VipaTotals::default();
    let before = VipaTotals { held: 10, released: 9, expired: 1, left: 10, forwarded: 50 };
    takeovers.begin((VIPA, VipaId(0), Epoch(2)), before, &Arrived::new(), Moment::ZERO);
    takeovers.begin((other, VipaId(1), Epoch(2)), none, &Arrived::new(), Moment::ZERO);
    let held = VipaTotals { held: 14, ..before };
    let counted = |id: VipaId| if id == VipaId(0) { held } else { none };
    takeovers.watch(counted, Moment(1_000));
    takeovers.finish(report(2), counted, Moment(2_000));
    takeovers.finish(TakeoverReport { vipa: other, ..report(2) }, counted, Moment(2_000));
    assert!(takeovers.completed(counted, Moment(3_000)).is_empty(), "nothing has been counted");
    takeovers.counted(other, Epoch(1), 99);
    takeovers.counted(other, Epoch(2), 7);
    takeovers.counted(VIPA, Epoch(2), 300);
    let [of_other] = &takeovers.completed(counted, Moment(3_000))[..] else { panic!("{takeovers:?}") };
    assert_eq!((of_other.report.vipa, of_other.connections_known_before), (other, 7));
    assert_eq!((of_other.held, of_other.released, of_other.first_forward_us), (0, 0, None));
    let released = VipaTotals { held: 14, released: 12, expired: 1, left: 14, forwarded: 50 };
    let [record] = &takeovers.completed(|_| released, Moment(4_000))[..] else { panic!("{takeovers:?}") };
    assert_eq!((record.connections_known_before, record.held, record.released, record.expired), (300, 4, 3, 0));
    takeovers.close().await;
    std::fs::remove_dir_all(folder).unwrap();
}

fn epochs(takeovers: &Takeovers) -> Vec<u64> {
    takeovers.records().iter().map(|record| record.report.epoch.0).collect()
}

#[tokio::test]
async fn reports_are_there_after_a_restart_and_only_the_newest_are_kept() {
    let folder = folder("restart");
    let mut first = Takeovers::open(&folder);
    (1..=10).for_each(|epoch| take_over(&mut first, epoch));
    let before = first.records();
    first.close().await;
    let mut second = Takeovers::open(&folder);
    assert_eq!(second.records(), before);
    (11..=300).for_each(|epoch| take_over(&mut second, epoch));
    second.close().await;
    let third = Takeovers::open(&folder);
    assert_eq!(epochs(&third), (300 - KEPT as u64 + 1..=300).collect::<Vec<_>>());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_damaged_file_costs_its_reports_and_nothing_else() {
    let folder = folder("damaged");
    std::fs::write(folder.join(FILE), "[{").unwrap();
    let mut takeovers = Takeovers::open(&folder);
    assert!(takeovers.records().is_empty());
    take_over(&mut takeovers, 3);
    takeovers.close().await;
    assert_eq!(epochs(&Takeovers::open(&folder)), [3]);
    std::fs::remove_dir_all(folder).unwrap();
}
