//! The end that asks.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Reply, Request};

/// A request that was sent.
pub(crate) struct Call {
    replies: BufReader<UnixStream>,
}

impl Call {
    /// Sends a request to the process that has this control socket.
    pub(crate) fn send(path: &Path, request: &Request) -> Result<Self> {
        let mut stream = UnixStream::connect(path).with_context(|| {
            format!(
                "no ringperf answers at {} (server and client open it with --control)",
                path.display()
            )
        })?;
        let line = serde_json::to_string(request)? + "\n";
        stream.write_all(line.as_bytes()).context("sending a request")?;
        Ok(Call {
            replies: BufReader::new(stream),
        })
    }

    /// Waits for the next reply. What could not be done is an error.
    pub(crate) fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.replies
            .read_line(&mut line)
            .context("waiting for an answer")?;
        if line.is_empty() {
            bail!("the process that was asked has ended, or closed the connection");
        }
        match serde_json::from_str(&line).context("the answer is not understood")? {
            Reply::Error(problem) => bail!(problem),
            reply => Ok(reply),
        }
    }
}
