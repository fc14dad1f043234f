//! The kernel's side of the rings, for tests.

mod sys;

pub(crate) use self::sys::{Kernel, reconnect, rings};
