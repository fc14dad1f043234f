//! datagrams
