//! HTTP/3 (RFC 9114) on [`ringway_async`]: the crate [`h3`] speaks it, and this is its transport.
#![forbid(unsafe_code)]

mod connection;
#[cfg(feature = "datagram")]
mod datagram;
mod error;
mod streams;

pub use h3;
#[cfg(feature = "datagram")]
pub use h3_datagram;
pub use ringway_async;
use ringway_async::ringway::Settings;

pub use self::connection::{Connection, OpenStreams};
#[cfg(feature = "datagram")]
pub use self::datagram::{RecvDatagramHandler, SendDatagramHandler};
pub use self::streams::{BidiStream, RecvStream, SendStream};

/// The application protocol of HTTP/3.
pub const ALPN: &[u8] = b"h3";

/// Settings for either end of HTTP/3, to begin with: 100 requests at a time, the peer's control streams and some more, and datagrams (RFC 9114
/// sections 6.1 and 6.2).
pub fn settings() -> Settings {
    Settings {
        peer_bidi_stream_count: 100,
        peer_uni_stream_count: 16,
        datagram_receive_enabled: true,
        ..Settings::default()
    }
}
