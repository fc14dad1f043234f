//! The end that asks.

use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::protocol::{Reply, Request};

/// A request that was sent.
pub(crate) struct Call {
    replies: BufReader<UnixStream>,
    /// Of a reply, as far as it has come.
    line: String,
}

impl Call {
    /// Sends a request to the process that has this control socket.
    pub(crate) fn send(path: &Path, request: &Request) -> Result<Self> {
        let (mut stream, line) = Call::prepare(path, request)?;
        stream.write_all(line.as_bytes()).context("sending a request")?;
        Ok(Call::begun(stream))
    }

    /// Sends a request, and with it a file to write to.
    pub(crate) fn send_with_file(path: &Path, request: &Request, file: OwnedFd) -> Result<Self> {
        let (stream, line) = Call::prepare(path, request)?;
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        ensure!(
            control.push(SendAncillaryMessage::ScmRights(&files)),
            "there is no room for a file"
        );
        let bytes = line.as_bytes();
        let sent = sendmsg(&stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
        let sent = sent.context("sending a request")?;
        ensure!(sent == bytes.len(), "sending a request: only a part of it went");
        Ok(Call::begun(stream))
    }

    fn prepare(path: &Path, request: &Request) -> Result<(UnixStream, String)> {
        let stream = UnixStream::connect(path).with_context(|| {
            format!(
                "no ringperf answers at {} (server and client open it with --control)",
                path.display()
            )
        })?;
        Ok((stream, serde_json::to_string(request)? + "\n"))
    }

    fn begun(stream: UnixStream) -> Self {
        Call {
            replies: BufReader::new(stream),
            line: String::new(),
        }
    }

    /// Waits for the next reply. What could not be done is an error.
    pub(crate) fn reply(&mut self) -> Result<Reply> {
        loop {
            if let Some(reply) = self.reply_within(Duration::from_secs(1))? {
                return Ok(reply);
            }
        }
    }

    /// The next reply, if it comes within this time.
    pub(crate) fn reply_within(&mut self, time: Duration) -> Result<Option<Reply>> {
        self.replies.get_ref().set_read_timeout(Some(time))?;
        match self.replies.read_line(&mut self.line) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(None);
            }
            read => read.context("waiting for an answer")?,
        };
        if self.line.is_empty() {
            bail!("the process that was asked has ended, or closed the connection");
        }
        let line = std::mem::take(&mut self.line);
        match serde_json::from_str(&line).context("the answer is not understood")? {
            Reply::Error(problem) => bail!(problem),
            reply => Ok(Some(reply)),
        }
    }

    /// Asks for the end of what goes on.
    pub(crate) fn end(&self) -> Result<()> {
        let ended = self.replies.get_ref().shutdown(Shutdown::Write);
        ended.context("asking for the end")
    }
}
