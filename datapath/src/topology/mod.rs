//! What this machine has, and where: processors, NUMA nodes, the queues of a NIC.
//!
//! [`Machine`] and [`Interface`] are plain data, read from the system or made up; a [`Plan`](crate::plan::Plan) is made from them and from
//! nothing else. Reading processors takes hwloc, and the feature `topology`.

mod interface;
mod interrupts;
mod machine;
mod netdev;
pub(crate) mod netlink;
mod rss;
mod surroundings;
mod sys;

#[cfg(feature = "af_xdp")]
pub(crate) use self::interface::index;
pub use self::interface::{Interface, LinkKind, Queue};
pub use self::machine::{Machine, Processor};
pub use self::rss::{HashFields, Rss};
#[cfg(feature = "af_xdp")]
pub(crate) use self::surroundings::read::bpf_files;
pub use self::surroundings::{DriverXdp, Surroundings};
#[cfg(feature = "af_xdp")]
pub(crate) use self::sys::{channels, mtu, receive_ring_entries, strips_tags};
