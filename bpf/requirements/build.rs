//! Looks for the tools and headers that the build scripts of our dependencies need, and names the Debian packages of those that are missing.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

/// What to look for, and the package that has it.
struct Requirement {
    name: &'static str,
    package: &'static str,
    is_there: fn() -> bool,
}

const BPF: &[Requirement] = &[
    Requirement {
        name: "clang",
        package: "clang",
        is_there: || runs(&tool("CLANG", "clang"), &["--version"]),
    },
    Requirement {
        name: "m4",
        package: "m4",
        is_there: || runs(&tool("M4", "m4"), &["--version"]),
    },
    Requirement {
        name: "make",
        package: "make",
        is_there: || runs("make", &["--version"]),
    },
    Requirement {
        name: "pkg-config",
        package: "pkg-config",
        is_there: || runs("pkg-config", &["--version"]),
    },
    Requirement {
        name: "libelf.h",
        package: "libelf-dev",
        is_there: || has_header("libelf.h"),
    },
    Requirement {
        name: "zlib.h",
        package: "zlib1g-dev",
        is_there: || has_header("zlib.h"),
    },
    Requirement {
        name: "linux/bpf.h",
        package: "linux-libc-dev",
        is_there: || has_header("linux/bpf.h"),
    },
];

const HWLOC: &[Requirement] = &[
    Requirement {
        name: "pkg-config",
        package: "pkg-config",
        is_there: || runs(&tool("PKG_CONFIG", "pkg-config"), &["--version"]),
    },
    Requirement {
        name: "hwloc 2.8",
        package: "libhwloc-dev",
        is_there: || runs(&tool("PKG_CONFIG", "pkg-config"), &["--exists", "hwloc >= 2.8.0"]),
    },
    // hwloc is linked with what it needs itself.
    Requirement {
        name: "libudev",
        package: "libudev-dev",
        is_there: || runs(&tool("PKG_CONFIG", "pkg-config"), &["--exists", "libudev"]),
    },
];

fn main() {
    // Not if the environment changes: what was found once is not looked for again, and a failure is not remembered.
    println!("cargo::rerun-if-changed=build.rs");
    // Somebody who builds for another machine has the headers of that machine in another place.
    if env::var_os("HOST") != env::var_os("TARGET") {
        return;
    }
    let mut missing: Vec<&Requirement> = Vec::new();
    let sets = [(cfg!(feature = "bpf"), BPF), (cfg!(feature = "hwloc"), HWLOC)];
    for requirement in sets.iter().filter(|(on, _)| *on).flat_map(|(_, set)| *set) {
        let is_new = missing.iter().all(|other| other.package != requirement.package);
        if is_new && !(requirement.is_there)() {
            missing.push(requirement);
        }
    }
    if missing.is_empty() {
        return;
    }
    let list = |part: fn(&Requirement) -> &'static str, between| {
        let parts: Vec<&str> = missing.iter().map(|requirement| part(requirement)).collect();
        parts.join(between)
    };
    println!(
        "cargo::error=this machine lacks {}, which AF_XDP or the topology is built with: apt-get install {}",
        list(|requirement| requirement.name, ", "),
        list(|requirement| requirement.package, " ")
    );
}

/// A tool, under the name that the build scripts of our dependencies use too.
fn tool(variable: &str, name: &str) -> String {
    env::var(variable).unwrap_or_else(|_| name.to_owned())
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Asks the preprocessor. True if there is none: a build without a C compiler fails otherwise, and says so.
fn has_header(name: &str) -> bool {
    let child = Command::new(tool("CC", "cc"))
        .args(["-E", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return true };
    if let Some(mut input) = child.stdin.take() {
        // What cannot be written makes it fail.
        let _ = writeln!(input, "#include <{name}>");
    }
    child.wait().is_ok_and(|status| status.success())
}
