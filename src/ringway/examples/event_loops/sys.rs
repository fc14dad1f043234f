//! Reads of files by the ring.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use ringway::Completion;
use ringway::io_uring::{IoUring, opcode, types};

/// A file that is read by a ring from its beginning to its end, into memory that is never given back: the kernel may write to it for as long as
/// it likes.
pub(crate) struct FileReader {
    file: File,
    buffer: &'static mut [u8],
    offset: u64,
}

impl FileReader {
    /// Of a file.
    pub(crate) fn new(file: File) -> Self {
        FileReader {
            file,
            buffer: vec![0; 64 << 10].leak(),
            offset: 0,
        }
    }

    /// Reads the next bytes, with the ring's next submission.
    pub(crate) fn begin(&mut self, ring: &mut IoUring, user_data: u64) -> io::Result<()> {
        let (start, len) = (self.buffer.as_mut_ptr(), self.buffer.len() as u32);
        let read = opcode::Read::new(types::Fd(self.file.as_raw_fd()), start, len).offset(self.offset);
        // SAFETY: the memory is never freed, and nobody looks at it before the read has ended.
        let pushed = unsafe { ring.submission().push(&read.build().user_data(user_data)) };
        pushed.map_err(io::Error::other)
    }

    /// How many bytes the read has brought.
    pub(crate) fn finish(&mut self, completion: &Completion) -> io::Result<usize> {
        let len = usize::try_from(completion.result)
            .map_err(|_| io::Error::from_raw_os_error(-completion.result))?;
        self.offset += len as u64;
        Ok(len)
    }
}
