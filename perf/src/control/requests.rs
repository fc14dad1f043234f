//! Requests as they arrive: lines, and files beside them.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// What comes by a connection.
pub(super) struct Requests {
    stream: UnixStream,
    bytes: Vec<u8>,
    files: VecDeque<OwnedFd>,
}

impl Requests {
    pub(super) fn new(stream: UnixStream) -> Self {
        Requests {
            stream,
            bytes: Vec::new(),
            files: VecDeque::new(),
        }
    }

    /// The next line; `None` if there is none any more, or it is longer than any request.
    pub(super) fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line = self.bytes.drain(..=end).collect();
                return String::from_utf8(line).map(Some).map_err(io::Error::other);
            }
            if self.bytes.len() > REQUEST_BYTES_MAX || !self.receive()? {
                return Ok(None);
            }
        }
    }

    pub(super) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    /// The file that came with the last request.
    pub(super) fn file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }

    /// False at the end of the stream.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.stream,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        self.files.truncate(FILES_MAX);
        self.bytes.extend_from_slice(&bytes[..received.bytes]);
        Ok(received.bytes > 0)
    }
}

/// More than any request has.
const REQUEST_BYTES_MAX: usize = 1 << 20;
const FILES_MAX: usize = 4;
