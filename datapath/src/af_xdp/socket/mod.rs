//! The AF_XDP socket of a queue, and what only the kernel can do.

mod kernel;
mod sys;

pub(super) use self::kernel::{BindMode, Binding, Counts, Kernel};
pub(super) use self::sys::{SpareSocket, XskSocket};
