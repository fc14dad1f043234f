//! The rings between a process and the kernel, each with one side that produces and one that consumes.

mod sys;

pub(crate) use self::sys::{Consumer, Descriptor, Producer, of_heap, sides};
