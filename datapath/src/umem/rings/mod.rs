//! The four rings of a queue, by which the chunks of its UMEM go to the kernel and come back.

mod frames;
mod lent;
#[cfg(test)]
pub(crate) mod mock;
mod sys;
#[cfg(test)]
mod tests;

pub(crate) use self::frames::{Outgoing, Received, RingSizes};
pub(crate) use self::sys::{RingSides, Rings};
