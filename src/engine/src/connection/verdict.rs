//! The application's verdict on the peer's certificate, which may come later.
//!
//! Until it is there, nothing is taken from the TLS session: a client has no 1-RTT keys and does not send its Finished, and on a server the
//! handshake does not complete, so that no ticket, no HANDSHAKE_DONE and no data leaves, and none is delivered. What arrives meanwhile is
//! acknowledged as far as there are keys for it; the peer sends the rest again.

use ringway_types::Instant;

use super::Connection;
use super::events::Event;
use super::handshake::Verdict;
use crate::crypto::tls::TlsInfo;
use crate::wire::error::{TransportError, TransportErrorCode};

impl Connection {
    /// Asks the application about a certificate that has just come.
    pub(super) fn ask_about_certificate(&mut self) {
        let Some(certificate) = self.handshake.tls.as_mut().and_then(|tls| tls.take_certificate()) else {
            return;
        };
        self.handshake.verdict = Verdict::Awaited;
        // The server has not taken up the earlier session, and will not read what is sent with its keys.
        self.stop_early();
        self.content.events.push_back(Event::PeerCertificateReceived {
            chain: certificate.chain,
            deferred_error: certificate.deferred_error.map(|error| error.to_string()),
        });
    }

    /// The application's answer to [`Event::PeerCertificateReceived`]. False: it is not, or no longer, awaited.
    pub fn set_certificate_valid(&mut self, now: Instant, valid: bool) -> bool {
        if self.handshake.verdict != Verdict::Awaited || !self.is_open() {
            return false;
        }
        self.handshake.verdict = Verdict::Trusted;
        let result = if valid {
            self.advance_handshake(now)
        } else {
            Err(TransportError::new(
                TransportErrorCode::crypto(ALERT_BAD_CERTIFICATE),
                "the application does not trust the peer's certificate",
            ))
        };
        self.check(now, result);
        true
    }

    /// What the handshake has agreed on so far; `None`: a server has not begun it yet.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        match (&self.handshake.info, &self.handshake.tls) {
            (Some(info), _) => Some(TlsInfo::clone(info)),
            (None, Some(tls)) => Some(tls.info()),
            (None, None) => None,
        }
    }
}

/// TLS alert (RFC 8446 section 6.2).
const ALERT_BAD_CERTIFICATE: u8 = 42;
