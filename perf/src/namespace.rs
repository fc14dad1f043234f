//! Network namespaces, by the command `ip`.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// A network namespace, deleted when this is dropped, and with it the interfaces in it and their peers.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one; it needs root.
    ///
    /// # Errors
    ///
    /// There is one of this name, or `ip` is not installed or lacks the privilege, as it says.
    pub fn add(name: String) -> Result<Self> {
        ip(&format!("netns add {name}"))?;
        Ok(Namespace { name })
    }

    /// How `ip netns` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it with these words, and gives what it prints.
    ///
    /// # Errors
    ///
    /// `ip` is not installed, or does not succeed: what it says.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        ip(&format!("-n {} {arguments}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// A program in the namespace of this name, or in that of this process. The process that is started becomes the program: its number is that
/// of the program.
pub fn command_in(namespace: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    match namespace {
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Runs `ip` with these words, and gives what it prints.
///
/// # Errors
///
/// `ip` is not installed, or does not succeed: what it says.
pub fn ip(arguments: &str) -> Result<String> {
    process::run(Command::new("ip").args(arguments.split_whitespace()))
}
