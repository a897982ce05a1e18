//! Finds the installed DPDK with pkg-config, compiles the shim and generates the bindings.

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

const OLDEST_DPDK: &str = "22.11";

/// Called as they are; all else of DPDK goes through the shim.
const FUNCTIONS: [&str; 17] = [
    "rte_dev_probe",
    "rte_eal_cleanup",
    "rte_eal_init",
    "rte_eth_allmulticast_disable",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_start",
    "rte_eth_promiscuous_disable",
    "rte_eth_promiscuous_enable",
    "rte_mempool_avail_count",
    "rte_mempool_free",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_pool_create",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_version",
];

fn main() {
    println!("cargo::rerun-if-changed=shim.h");
    println!("cargo::rerun-if-changed=shim.c");
    let found = pkg_config::Config::new().atleast_version(OLDEST_DPDK).probe("libdpdk");
    if found.is_err() {
        give_up("libdpdk");
    }
    let flags = compiler_flags();

    let mut shim = cc::Build::new();
    // The fast path is in here: optimised in every profile.
    shim.file("shim.c").opt_level(3).warnings(false).flag("-Wall").flag("-Wno-deprecated-declarations");
    for flag in &flags {
        shim.flag(flag);
    }
    shim.compile("vipa_shim");
    generate(&flags);
}

/// `pkg-config --cflags`: the include folders, and what DPDK's headers cannot do without (`-include`, `-march`).
fn compiler_flags() -> Vec<String> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program).args(["--cflags", "libdpdk"]).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(String::from).collect()
        }
        _ => give_up("libdpdk"),
    }
}

fn generate(flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(flags)
        .allowlist_recursively(false)
        .allowlist_item("(vipa|VIPA)_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(false)
        .generate_comments(false);
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    // bindgen panics when there is no libclang.
    std::panic::set_hook(Box::new(|_| ()));
    let bindings = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.generate()));
    let _ = std::panic::take_hook();
    let Ok(bindings) = bindings else { give_up("libclang") };
    let bindings = bindings.expect("DPDK's headers are C that clang understands");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bindings.write_to_file(folder.join("bindings.rs")).expect("OUT_DIR can be written");
}

fn give_up(missing: &str) -> ! {
    match missing {
        "libdpdk" => {
            eprintln!("DPDK {OLDEST_DPDK} or newer is missing: run `make deps` as root, which installs libdpdk-dev")
        }
        _ => eprintln!("{missing} is missing: run `make deps` as root, which installs it"),
    }
    exit(1)
}
