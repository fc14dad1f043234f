//! Where it was measured, and with what.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Result;
use clap::ValueEnum;
use procfs::{CpuInfo, Current};
use ringway_datapath::thread;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::contenders::Stack;

/// The machine and the programs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub date: String,
    pub processor: String,
    pub processors: usize,
    pub kernel: String,
    pub system: String,
    pub rustc: String,
    pub versions: Vec<Version>,
}

/// Of a stack.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Version {
    pub stack: Stack,
    pub version: String,
}

const UNKNOWN: &str = "unknown";

impl Environment {
    pub(super) fn read(peers: &Path) -> Result<Self> {
        let kernel = rustix::system::uname();
        let cpu = CpuInfo::current().ok();
        let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
        Ok(Environment {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            processor: known(cpu.and_then(|cpu| cpu.model_name(0).map(str::to_owned))),
            processors: thread::processors()?.len(),
            kernel: format!(
                "{} {}",
                kernel.sysname().to_string_lossy(),
                kernel.release().to_string_lossy()
            ),
            system: known(distribution()),
            rustc: known(printed(Command::new("rustc").arg("--version"))),
            versions: versions(peers),
        })
    }
}

/// How this Linux distribution calls itself.
fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim().trim_matches('"').to_owned())
}

/// The first line that a command prints; `None` if it fails.
fn printed(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned())
}

/// Of our own the commit too, where there is one to be found; of the others what their programs were built from.
fn versions(peers: &Path) -> Vec<Version> {
    let own = std::env::current_exe().ok();
    let commit = own.as_deref().and_then(Path::parent).and_then(|directory| {
        printed(
            Command::new("git")
                .arg("-C")
                .arg(directory)
                .args(["describe", "--always", "--dirty"]),
        )
    });
    let number = env!("CARGO_PKG_VERSION");
    let ringway = match commit {
        Some(commit) => format!("{number} ({commit})"),
        None => number.to_owned(),
    };
    // DIRECTORY/target/release holds the programs.
    let lock = peers
        .ancestors()
        .nth(2)
        .and_then(|directory| fs::read_to_string(directory.join("Cargo.lock")).ok())
        .and_then(|text| text.parse::<Table>().ok());
    let peers = Stack::value_variants().iter().filter_map(|stack| {
        let (_, package) = stack.peer()?;
        let version = locked(lock.as_ref()?, package)?;
        Some((*stack, version))
    });
    [(Stack::Ringway, ringway)]
        .into_iter()
        .chain(peers)
        .map(|(stack, version)| Version { stack, version })
        .collect()
}

/// The version of a package in a Cargo.lock.
fn locked(lock: &Table, package: &str) -> Option<String> {
    let packages = lock.get("package")?.as_array()?;
    let named = |found: &&toml::Value| found.get("name").and_then(toml::Value::as_str) == Some(package);
    let version = packages.iter().find(named)?.get("version")?.as_str()?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_other_stacks_are_those_of_their_lock_file() {
        let directory = tempfile::tempdir().unwrap();
        let lock = "[[package]]\nname = \"quinn\"\nversion = \"0.11.9\"\n\n[[package]]\nname = \"rustls\"\nversion = \"0.23.1\"\n";
        fs::write(directory.path().join("Cargo.lock"), lock).unwrap();
        let found = versions(&directory.path().join("target/release"));
        let of = |stack| {
            let version = found.iter().find(|version| version.stack == stack);
            version.map(|version| &version.version[..])
        };
        assert_eq!(of(Stack::Quinn), Some("0.11.9"));
        assert_eq!(of(Stack::TlsTcp), Some("0.23.1"));
        assert_eq!(of(Stack::Quiche), None);
        assert!(of(Stack::Ringway).is_some());
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let environment = Environment::read(Path::new("/no/such")).unwrap();
        assert!(environment.kernel.starts_with("Linux"));
        assert!(environment.processors > 0);
    }
}
