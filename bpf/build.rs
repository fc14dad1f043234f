//! Compiles the BPF programs with clang.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "src/xdp.bpf.c";

fn main() {
    let object = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("xdp.bpf.o");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    // Debian keeps <asm/types.h> here, where clang does not look when it compiles for BPF.
    let include = format!("-I/usr/include/{arch}-linux-gnu");
    let built = SkeletonBuilder::new()
        .source(SOURCE)
        .obj(&object)
        .clang_args([include.as_str(), "-Wall", "-Werror"])
        .build();
    if let Err(error) = built {
        panic!("the BPF program cannot be compiled: {error:#}");
    }
    println!("cargo:rerun-if-changed={SOURCE}");
}
