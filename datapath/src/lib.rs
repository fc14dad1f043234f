//! The datapath of Ringway: packets in and out.

pub mod meta;
pub mod time;
