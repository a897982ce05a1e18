//! Compiles the BPF programs in `bpf/`; the agent carries them within itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

const PROGRAMS: [&str; 2] = ["decap", "observe"];

fn main() {
    let variable = |name: &str| env::var(name).expect("cargo sets it");
    let out = PathBuf::from(variable("OUT_DIR"));
    // Where Debian keeps the headers of the machine's own architecture, which clang does not look for on its own.
    let own_headers = format!("-I/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    println!("cargo::rerun-if-changed=bpf");
    for program in PROGRAMS {
        let source = format!("bpf/{program}.bpf.c");
        let object = out.join(format!("{program}.o"));
        let clang = Command::new("clang")
            .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", &own_headers, "-c", &source, "-o"])
            .arg(&object)
            .status();
        match clang {
            Ok(status) if status.success() => {}
            Ok(_) => fail("the BPF programs do not compile, see above; install clang and libbpf-dev: make deps"),
            Err(_) => fail("clang is missing, which compiles the agent's BPF programs; install it: make deps"),
        }
        assert!(fs::metadata(Path::new(&object)).is_ok_and(|file| file.len() > 0), "clang wrote nothing");
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1);
}
