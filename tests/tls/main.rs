//! TLS as applications use it: whose certificates are shown and trusted, when that is decided, what is told of it, and how handshakes fail. Over a
//! virtual network where time matters, and (`network`, `names`, `verdicts`, `tickets`, `ticket_files`) over the kernel's: on the datapath, in the
//! mode and on the event loop that `TEST_DATAPATH`, `TEST_MODE` and `TEST_EVENT_LOOP` name.

mod ech;
mod ech_server;
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
