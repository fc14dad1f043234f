//! HTTP/3 (RFC 9114) on [`ringway_async`]: the crate [`h3`] speaks it, and this is its transport.
//!
//! Give a [`Connection`](ringway_async::Connection) whose handshake is complete, and which has agreed on [`ALPN`], to [`Connection::new`], and that
//! to [`h3::server::Connection::new`] or [`h3::client::new`]. Everything else is h3's. Whoever comes from `h3-quinn` replaces its name by this one's,
//! and [`settings`] is what the `TransportConfig` was; what differs is what a drop means:
//!
//! | dropped before its end | is |
//! |---|---|
//! | what sends a request or a response | reset with H3_REQUEST_CANCELLED (of h3-quinn it is finished) |
//! | the same of a response of which only headers were sent | finished, as h3 relies on it |
//! | either of them, by a panic | reset with H3_INTERNAL_ERROR |
//! | what receives a request | stopped with H3_NO_ERROR, unless all of it has arrived |
//! | what receives a response | stopped with H3_REQUEST_CANCELLED, unless all of it has arrived |
//!
//! So nobody takes a part for the whole, but for a response that is dropped behind its headers, which looks like a whole one without content: whoever
//! fails there, or may be aborted, resets it ([`stop_stream`](h3::server::RequestStream::stop_stream)). A response that comes before its request is
//! complete counts (RFC 9114 section 4.1).
//!
//! Errors keep their codes: RESET_STREAM, STOP_SENDING and the peer's CONNECTION_CLOSE of an application arrive as h3's `RemoteTerminate` and
//! `ApplicationClose`, any timeout as `Timeout`, and all else as the [`ConnectionError`](ringway_async::ConnectionError) that it is.
//!
//! With the feature `datagram`, connections have datagrams (RFC 9297) as the crate `h3-datagram` has them, and with them the crate `h3-webtransport`
//! accepts sessions of draft 2, which Chromium speaks. Its `accept_uni` and `accept_bi` wait in one place: call both in one task. It refuses a
//! session whose request is accepted before the client's settings have come, on another stream: wait for them, as the example does.
//! `h3-datagram` 0.0.2 sends each datagram in the name of the connection's first request, whichever it was meant for
//! ([its issue 345](https://github.com/hyperium/h3/issues/345)): have datagrams, and WebTransport, on the first request only.
//!
//! Content that is sent is copied twice, by h3's frames into chunks and by the engine into packets; content that is received, once, and twice where
//! it came out of order or waited.
//!
//! `examples/` has a file server that browsers find by `Alt-Svc`, a client, a reverse proxy, and a WebTransport server.
//!
//! # Tried with
//!
//! | | its client with our server | our client with its server |
//! |---|---|---|
//! | Chromium 156 | versions 1 and 2 | |
//! | aioquic 1.2 | versions 1 and 2 | versions 1 and 2 |
//! | ngtcp2 1.11 (nghttp3, GnuTLS) | versions 1 and 2 | version 1 |
//! | quinn 0.11 + h3, s2n-quic 1.91 + h3, quiche 0.30 | version 1 | version 1 |
//! | curl 8.14 (OpenSSL's QUIC, nghttp3), curl_cffi 0.17 | version 1 | |
//! | nginx 1.26, HAProxy 3.0, Caddy 2.6 (quic-go) | | version 1 |
//!
//! Files of 0 bytes, 5 bytes and 5 MB, by their hashes; to aioquic they are sent, too (`tests/interop/http3.py`, on io_uring and on sockets; with
//! quiche and s2n-quic by `scripts/test.sh --all interop`). Chromium loads a page with images, a download, an upload and a WebTransport session
//! (`scripts/browser.sh`). What finds the server by `Alt-Svc`, and the WebTransport session, are tried in version 1 only: Chromium takes `h3` in
//! `Alt-Svc` for version 1, and begins its sessions with version 1 whatever it is told.
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
