//! The AF_XDP socket of a queue, and what only the kernel can do.

mod kernel;
mod sys;

#[cfg(test)]
pub(super) use self::kernel::Counts;
pub(super) use self::kernel::{BindMode, Binding, Kernel};
pub(super) use self::sys::XskSocket;
