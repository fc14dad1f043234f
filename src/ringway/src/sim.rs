//! A simulated network in virtual time, for tests of applications. Needs the feature `sim`.
//!
//! [`Execution::create_simulated`](crate::Execution::create_simulated) opens a registration on a [`SimNetwork`] instead of
//! the kernel's network. It starts no threads: the test polls the contexts and moves the time forward, so an hour of idle
//! timeouts passes in an instant, and the same seed always gives the same losses, delays and reorderings.
//!
//! ```
//! use std::net::IpAddr;
//! use std::time::Duration;
//!
//! use ringway::sim::{Link, SimNetwork};
//! use ringway::{Execution, ExecutionConfig, Instant, Wait};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = SimNetwork::new(42);
//! network.set_default_link(Link { loss: 0.01, delay: Duration::from_millis(20), ..Link::default() });
//! let mut now = Instant::from_nanos(1_000_000_000);
//! let ip: IpAddr = "192.0.2.1".parse()?;
//! // One partition, one datagram in each transmit slot.
//! let (server, mut contexts) = Execution::create_simulated(&network, ip, 1, 1, &ExecutionConfig::default(), now)?;
//! // Further hosts add their contexts to the same loop; then listeners are started and connections opened as on any registration.
//! let end = now + Duration::from_secs(60);
//! while now < end {
//!     let mut next = network.next_arrival().unwrap_or(end);
//!     for context in &mut contexts {
//!         match context.poll_at(now) {
//!             Wait::NoWait => next = now,
//!             Wait::Until(deadline) => next = next.min(deadline),
//!             Wait::UntilEvent => {}
//!         }
//!     }
//!     now = now.max(next).min(end);
//! }
//! # drop(server);
//! # Ok(())
//! # }
//! ```

pub use ringway_datapath::sim::{Capture, Captured, Link, RawPort, SimNetwork, SimStats, Verdict};
