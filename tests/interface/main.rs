//! What applications can ask, set and count, on a virtual network: each item of the interface by its effect.

mod credentials;
mod execution;
mod fleet_keys;
mod listeners;
mod scene;
mod settings;
mod statistics;
