//! How much may be in flight: congestion controllers (RFC 9002 section 7, RFC 9438) and the pacer.

mod controller;
mod cubic;
mod newreno;
pub mod pacer;
#[cfg(test)]
mod tests;
mod window;

pub use self::controller::{Algorithm, CongestionEvent, Controller};
pub use self::window::Acked;
