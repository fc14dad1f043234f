//! What servers and clients of HTTP/3 have in common, whatever speaks it.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;

/// The application protocol of HTTP/3.
pub const ALPN_HTTP3: &[u8] = b"h3";

/// The files that a server has, in memory: by their paths in requests.
#[derive(Debug)]
pub struct Files(HashMap<String, Bytes>);

impl Files {
    /// Those of a folder.
    pub fn read(folder: &Path) -> Result<Files> {
        let mut files = HashMap::new();
        for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if !path.is_file() {
                continue;
            }
            let content = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.insert(format!("/{name}"), content.into());
        }
        Ok(Files(files))
    }

    /// The content of the file that a request asks for.
    pub fn get(&self, path: &str) -> Option<&Bytes> {
        self.0.get(path)
    }
}
