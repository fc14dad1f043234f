//! Properties of a network path: the size of its datagrams, and whether it carries ECN marks.

pub mod ecn;
pub mod mtu;
