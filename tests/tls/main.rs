//! TLS as applications use it: whose certificates are shown and trusted, when that is decided, what is told of it, and how handshakes fail. Over a
//! virtual network where time matters, and (`network`, `tickets`, `ticket_files`) over the kernel's on the datapath that `TEST_DATAPATH` names.

mod ech;
mod failures;
mod first_flight;
mod info;
mod names;
mod network;
mod odd_certificates;
mod scene;
// As the manual has it.
#[rustfmt::skip]
mod ticket_files;
mod tickets;
mod verdicts;
