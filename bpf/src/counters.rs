//! Counters of the program, and errors of its maps.

use std::io;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

pub(super) const COUNTER_BYTES: usize = 8;

/// A counter of a map of counters, over all processors.
pub(super) fn sum_of(counters: &MapHandle, index: u32) -> io::Result<u64> {
    let values = counters
        .lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)
        .map_err(into_io)?;
    Ok(values
        .unwrap_or_default()
        .iter()
        .filter_map(|value| value.first_chunk().copied())
        .map(u64::from_ne_bytes)
        .sum())
}

pub(super) fn into_io(error: libbpf_rs::Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}
