//! What every layer uses: time, integers and cursors of the wire, sets of ranges.

pub mod coding;
pub mod range_set;
pub mod varint;

pub use ringway_types::Instant;
