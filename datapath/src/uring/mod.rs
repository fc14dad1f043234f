//! A ring of io_uring together with the memory that its requests point to: closing a ring ends its requests some time later, and
//! nothing that they point to may be freed before.

mod memory;
mod sys;

pub(crate) use self::memory::RequestMemory;
pub use self::memory::leaked_packet_memory;
pub(crate) use self::sys::OwningRing;
