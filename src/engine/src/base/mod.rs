//! What every layer uses: integers and cursors of the wire, sets of ranges.

pub mod coding;
pub mod range_set;
pub mod varint;
