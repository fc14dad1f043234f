//! Secrets that both ends of a connection write down.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

/// The files of a case.
pub struct KeyLogs {
    pub client: NamedTempFile,
    pub server: NamedTempFile,
}

impl KeyLogs {
    pub fn new(directory: &Path) -> Result<KeyLogs> {
        Ok(KeyLogs {
            client: NamedTempFile::new_in(directory)?,
            server: NamedTempFile::new_in(directory)?,
        })
    }

    /// Whether both ends have written down the same.
    pub fn check(&self) -> Result<()> {
        let (client, server) = (read(self.client.path())?, read(self.server.path())?);
        ensure!(!client.is_empty(), "the client has written no secrets");
        ensure!(
            client == server,
            "secrets of the client: {client:#?}, and of the server: {server:#?}"
        );
        Ok(())
    }
}

/// The lines of the secrets that every connection has.
fn read(file: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(file).context("reading secrets")?;
    let labels = [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET ",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET ",
        "CLIENT_TRAFFIC_SECRET_0 ",
        "SERVER_TRAFFIC_SECRET_0 ",
    ];
    Ok(text
        .lines()
        .filter(|line| labels.iter().any(|label| line.starts_with(label)))
        .map(str::to_lowercase)
        .collect())
}
