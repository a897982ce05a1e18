use super::*;

fn device(text: &str) -> Device {
    text.parse().unwrap()
}

#[test]
fn a_virtual_device_has_a_name_a_driver_and_arguments() {
    let device = device("net_af_packet0,iface=eth0,qpairs=2");
    assert_eq!((device.name(), device.driver()), ("net_af_packet0", Some("net_af_packet")));
    assert_eq!((device.argument("iface"), device.argument("qpairs")), (Some("eth0"), Some("2")));
    assert_eq!((device.argument("face"), device.is_pci()), (None, false));
    assert_eq!(device.to_string(), "net_af_packet0,iface=eth0,qpairs=2");
}

#[test]
fn a_pci_address_is_kept_in_the_kernels_form() {
    assert_eq!(device("3B:00.1").name(), "0000:3b:00.1");
    assert_eq!(device("0000:03:00.0,dv_flow_en=1").to_string(), "0000:03:00.0,dv_flow_en=1");
    assert!(device("03:00.0").is_pci() && device("03:00.0").driver().is_none());
}

#[test]
fn what_is_no_device_is_refused_with_examples() {
    for text in ["", "eth0", "net_", "net_tap 0", "03:00", "0000:03:00.00", "net_null0\0"] {
        let error = text.parse::<Device>().unwrap_err().to_string();
        assert!(error.contains("net_af_packet0,iface=eth0"), "{text:?}: {error}");
    }
}

#[test]
fn an_interface_that_is_not_there_is_found_before_dpdk_is_asked() {
    let error = device("net_af_packet0,iface=nosuch9").check().unwrap_err();
    assert!(matches!(error, Error::NoInterface { .. } | Error::NotPermitted { .. }), "{error}");
}

#[test]
fn a_pci_device_that_is_not_there_is_found_before_dpdk_is_asked() {
    let error = device("fffe:03:00.0").check().unwrap_err();
    assert!(matches!(error, Error::NoPciDevice { .. }), "{error}");
}
