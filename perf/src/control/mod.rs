//! The control socket of a running server or client: a UNIX socket to which other commands of ringperf send requests.
//!
//! A request is a line of JSON, and so is each reply. Whoever may write to the socket's file may ask: its owner.

mod call;
mod capture_report;
mod protocol;
mod requests;
mod serve;

pub(crate) use self::call::Call;
pub(crate) use self::capture_report::CaptureReport;
pub(crate) use self::protocol::{Reply, Request};
pub(crate) use self::serve::{ControlListener, ControlSocket};
