//! System calls of the socket device: batches of messages, behind safe functions.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::lent::PacketBuffer;
use crate::udp::message::{CONTROL_BYTES, HeaderBuffers, IncomingMessage, NAME_BYTES, OutgoingMessage};

/// The most messages in one system call.
pub(super) const BATCH: usize = 64;

/// Memory for the headers of a batch of messages; made once, filled anew for each call.
///
/// Invariant: pointers in it are used by the kernel only during the call that has just written them.
pub(super) struct MessageBatch {
    headers: Box<[libc::mmsghdr]>,
    slices: Box<[libc::iovec]>,
    header_buffers: Box<[HeaderBuffers]>,
}

// SAFETY: the pointers inside are stale between calls and never followed; the memory belongs to the value alone.
unsafe impl Send for MessageBatch {}

impl std::fmt::Debug for MessageBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MessageBatch")
    }
}

impl MessageBatch {
    pub(super) fn new() -> Self {
        // SAFETY: all zero is a valid value of this plain C structure.
        let header = unsafe { MaybeUninit::<libc::mmsghdr>::zeroed().assume_init() };
        let slice = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        MessageBatch {
            headers: vec![header; BATCH].into(),
            slices: vec![slice; BATCH].into(),
            header_buffers: vec![HeaderBuffers::EMPTY; BATCH].into(),
        }
    }

    /// Sends messages, at most [`BATCH`]; gives how many the kernel took. An error is that of the first one.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl Iterator<Item = OutgoingMessage<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for message in messages.take(BATCH) {
            self.write_outgoing(count, &message);
            count += 1;
        }
        // SAFETY: the first `count` headers were written just now; they point into `self`, which is borrowed, and to the bytes of
        // the messages, whose lifetime 'a is longer than this call.
        let result = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result as usize)
        }
    }

    fn write_outgoing(&mut self, index: usize, message: &OutgoingMessage<'_>) {
        let header_buffers = &mut self.header_buffers[index];
        let (name_len, control_len) = header_buffers.write(message);
        // The kernel only reads what a message to be sent points to.
        self.slices[index] = libc::iovec {
            iov_base: message.bytes.as_ptr().cast_mut().cast(),
            iov_len: message.bytes.len(),
        };
        let header = &mut self.headers[index];
        header.msg_len = 0;
        header.msg_hdr.msg_name = header_buffers.name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = name_len as libc::socklen_t;
        header.msg_hdr.msg_iov = std::ptr::from_mut(&mut self.slices[index]);
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = if control_len == 0 {
            std::ptr::null_mut()
        } else {
            header_buffers.control.as_mut_ptr().cast()
        };
        header.msg_hdr.msg_controllen = control_len as _;
        header.msg_hdr.msg_flags = 0;
    }

    /// Receives messages, one into each buffer; gives how many.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffers: &mut [PacketBuffer],
    ) -> io::Result<usize> {
        let count = buffers.len().min(BATCH);
        for (index, buffer) in buffers.iter_mut().take(count).enumerate() {
            self.slices[index] = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            let header = &mut self.headers[index];
            header.msg_len = 0;
            let header_buffers = &mut self.header_buffers[index];
            header.msg_hdr.msg_name = header_buffers.name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = NAME_BYTES as libc::socklen_t;
            header.msg_hdr.msg_iov = std::ptr::from_mut(&mut self.slices[index]);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = header_buffers.control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: the first `count` headers were written just now; they point into `self` and into `buffers`, both of which
        // are borrowed for writing during the call, with their right lengths.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result as usize)
        }
    }

    /// What came with message `index` of the last [`MessageBatch::receive`].
    pub(super) fn incoming(&self, index: usize) -> IncomingMessage {
        let header = &self.headers[index];
        let HeaderBuffers { name, control } = &self.header_buffers[index];
        let name_len = NAME_BYTES.min(header.msg_hdr.msg_namelen as usize);
        let control_len = CONTROL_BYTES.min(header.msg_hdr.msg_controllen);
        IncomingMessage::read(
            &name[..name_len],
            &control[..control_len],
            header.msg_len as usize,
            header.msg_hdr.msg_flags,
        )
    }
}
