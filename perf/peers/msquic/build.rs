//! Builds MsQuic's C library from the sources in its crate. The crate can do so too, but what it builds prepares trace events that then go
//! nowhere, which MsQuic's own packages do not: it transfers a quarter less, and answers four requests where it could answer seven.

use std::env;
use std::path::PathBuf;

use cargo_metadata::MetadataCommand;

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    let target = env::var("TARGET").expect("Cargo sets it");
    let traces = here.join("traces.h");
    cmake::Config::new(sources(&target))
        // Whatever this program itself is built for: it is here to be measured.
        .profile("Release")
        .define("QUIC_BUILD_SHARED", "off")
        .define("QUIC_ENABLE_LOGGING", "off")
        .define("QUIC_TLS_LIB", "quictls")
        .define("QUIC_OUTPUT_DIR", out.join("lib"))
        // Only to move threads between processors, which they must not do here.
        .define("NUMA", "off")
        .cflag(format!("-include {}", traces.display()))
        .build();
    println!("cargo::rustc-link-search=native={}", out.join("lib").display());
    // The version of the crate is in the lock file.
    for file in [here.join("build.rs"), traces, here.join("../Cargo.lock")] {
        println!("cargo::rerun-if-changed={}", file.display());
    }
}

/// Where Cargo keeps the sources of the crate.
fn sources(target: &str) -> PathBuf {
    let metadata = MetadataCommand::new()
        .other_options(["--filter-platform".to_owned(), target.to_owned()])
        .exec()
        .expect("asking Cargo for the packages of this workspace");
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name == "msquic")
        .expect("msquic is a dependency");
    package
        .manifest_path
        .parent()
        .expect("a manifest is in a folder")
        .into()
}
