//! Properties of a network path: the size of its datagrams, and whether it carries ECN marks.

pub(crate) mod ecn;
pub(crate) mod mtu;
