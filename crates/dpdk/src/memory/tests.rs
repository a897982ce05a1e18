use super::*;

const FULL: Machine = Machine { free_mb: 0, mounted: true };
const UNMOUNTED: Machine = Machine { free_mb: 4096, mounted: false };
const READY: Machine = Machine { free_mb: 256, mounted: true };

#[test]
fn auto_takes_hugepages_only_when_enough_are_free_and_mounted() {
    let auto = EalMemory::Auto { megabytes: 256 };
    assert_eq!(auto.decide_on(&READY), Ok(EalMemory::Hugepages { megabytes: 256 }));
    assert_eq!(auto.decide_on(&FULL), Ok(EalMemory::NoHuge { megabytes: 256 }));
    assert_eq!(auto.decide_on(&UNMOUNTED), Ok(EalMemory::NoHuge { megabytes: 256 }));
}

#[test]
fn hugepages_that_are_demanded_and_missing_are_an_error_with_a_remedy() {
    let error = EalMemory::Hugepages { megabytes: 512 }.decide_on(&READY).unwrap_err();
    assert_eq!(error, Error::NoHugepages { wanted_mb: 512, free_mb: 256 });
    assert!(error.to_string().contains("dpdk-config/hugepages"), "{error}");
    let error = EalMemory::Hugepages { megabytes: 512 }.decide_on(&UNMOUNTED).unwrap_err();
    assert_eq!(error, Error::HugepagesNotMounted);
}

#[test]
fn ordinary_pages_ask_nothing_of_the_machine() {
    let memory = EalMemory::NoHuge { megabytes: 64 }.decide_on(&FULL).unwrap();
    assert_eq!(memory.options(), ["--no-huge", "-m64"]);
}

#[test]
fn a_hugetlbfs_is_recognised_among_the_mounts() {
    let line = "none /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0";
    assert_eq!(mount_of_hugepages(line), Some(PathBuf::from("/dev/hugepages")));
    assert_eq!(mount_of_hugepages("tmpfs /tmp tmpfs rw 0 0"), None);
    assert_eq!(mount_of_hugepages(""), None);
}
