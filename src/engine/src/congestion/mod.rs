//! How much may be in flight: congestion controllers (RFC 9002 section 7, RFC 9438) and the pacer.

mod controller;
mod cubic;
mod hystart;
mod newreno;
pub(crate) mod pacer;
#[cfg(test)]
mod tests;
mod window;

pub use self::controller::Algorithm;
pub(crate) use self::controller::{CongestionEvent, Controller};
pub(crate) use self::window::Acked;
