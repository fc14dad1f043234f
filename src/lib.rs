//! Ringway: QUIC for Linux servers.
#![forbid(unsafe_code)]

/// The engine's own modules, for fuzz targets, benchmarks and the simulation tests. No part of the API: anything
/// here may change without notice.
macro_rules! internal {
    ($($name:ident),* $(,)?) => {
        $(
            #[cfg(feature = "internals")]
            #[doc(hidden)]
            pub mod $name;
            #[cfg(not(feature = "internals"))]
            mod $name;
        )*
    };
}

internal!(
    base, wire, crypto, recovery, congestion, streams, datagrams, path, connection, worker
);

mod api;
