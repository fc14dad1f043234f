//! What every layer uses: integers and cursors of the wire, sets of ranges.

pub mod coding;
pub(crate) mod range_set;
pub(crate) mod varint;
