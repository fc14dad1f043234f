//! TLS 1.3 sessions for QUIC on rustls (RFC 9001 section 4).
//!
//! | part | what it is |
//! |---|---|
//! | `server`, `client` | configurations of either side: made from credentials, or an application's own of rustls |
//! | `identity`, `roots`, `groups`, `ech` | what credentials consist of |
//! | `verification`, `deferred`, `lenient` | whether the peer is trusted, at once or later, and how odd its certificate may be |
//! | `session` | one handshake |
//! | `capture`, `key_log` | what is taken out of rustls while it runs |
//! | `resumption`, `session_resumption` | tickets, and data before the handshake is complete |
//! | `ticket_import`, `session_maker` | tickets of other processes |
//! | `info` | what was agreed on |
//!
//! Sessions are resumed, and 0-RTT is sent and taken, where a configuration says so.

mod capture;
mod client;
mod deferred;
mod ech;
mod error;
mod groups;
mod identity;
mod info;
mod key_log;
mod lenient;
mod pem;
mod provider;
mod resumption;
mod roots;
mod server;
mod session;
mod session_maker;
mod session_resumption;
#[cfg(test)]
mod tests;
mod ticket_import;
mod verification;

#[doc(hidden)]
pub use self::capture::PresentedCertificate;
pub use self::client::{ClientCredentials, ClientTls};
pub use self::deferred::{CertificateReceived, DeferredClientVerifier, DeferredServerVerifier};
pub use self::ech::{Ech, EchOutcome, EchRejected};
pub use self::error::{AlpnError, TlsConfigError, UnusableRoot, check_alpns};
pub use self::groups::KeyExchangeGroup;
pub use self::identity::Identity;
pub use self::info::{ExportError, TlsInfo};
pub use self::key_log::key_log_callback;
pub(crate) use self::resumption::Resumable;
pub use self::roots::UnusableRoots;
pub use self::server::{ServerCredentials, ServerTls};
#[doc(hidden)]
pub use self::session::{KeyChange, TlsSession};
pub use self::ticket_import::TicketImportError;
pub use self::verification::ClientAuthentication;

/// Seeds the random generator, which takes tens of milliseconds once: at start-up rather than in the first handshake.
pub fn warm_up() {
    let mut byte = [0];
    // An error shows again, and is reported, where randomness is needed.
    let _ = aws_lc_rs::rand::fill(&mut byte);
}
