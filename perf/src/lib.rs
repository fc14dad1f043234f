//! `ringperf`: moves data and requests over Ringway, and says how fast and at what cost.
//!
//! Each command is a module with its arguments: `server`, `client`, `plan`, `floor`, `compare`, `capture`, `sources`. Below them stand the
//! options that several have (`options`, and `endpoint` with those of server and client), the control socket of these two (`control`), reports and
//! output. What tests and benchmarks use too is public.

mod api;
mod capture;
mod certificates;
mod client;
pub mod command_line;
mod compare;
mod control;
mod endpoint;
pub mod event_loop;
mod floor;
pub mod namespace;
mod options;
mod output;
#[cfg(feature = "af_xdp")]
mod plan;
pub mod process;
pub mod processors;
mod ranges;
mod report;
mod server;
mod signals;
mod source_rules;
mod sources;
mod statistics;
