//! Where things are in this machine, and a plan that follows it: which processor serves which queue of the NIC.
//!
//! Reading and deciding are apart: [`Machine`] and [`Interface`] are plain data, read from the system or made up; [`Plan`] is made from
//! them and from nothing else. Reading processors takes hwloc, and the feature `topology`.

mod interface;
mod machine;
mod plan;
mod rss;
mod sys;

pub use self::interface::{Interface, Queue};
pub use self::machine::{Machine, Processor};
pub use self::plan::{PartitionPlan, Plan, PlanError};
pub use self::rss::Rss;
