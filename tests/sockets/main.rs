//! Sockets that the application brings, and ports that listeners and connections share: over the kernel's network, on the datapath, in the mode and
//! on the event loop that `TEST_DATAPATH`, `TEST_MODE` and `TEST_EVENT_LOOP` name.

mod adopted;
mod namespaces;
mod peers;
mod scene;
