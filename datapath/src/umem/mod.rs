//! UMEM: packet memory that an AF_XDP socket shares with the kernel, and the tokens of its chunks that may pass from thread to thread.

mod sys;

pub(crate) use self::sys::{ReceivedChunk, UmemChunk, UmemRegion};
