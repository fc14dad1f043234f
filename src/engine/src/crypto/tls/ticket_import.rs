//! Tickets of other processes: what they are good for, and whether they still are.

use rustls::Error;
use rustls::pki_types::{ServerName, UnixTime};
use thiserror::Error;

use super::capture;
use super::client::ClientTls;
use crate::crypto::suite::{self, CipherSuite};
use crate::crypto::tickets::{ClientTicket, IdentityDigest, NewSessionTicket, TicketOrigin};
use crate::wire::transport_parameters::TransportParameters;
use crate::wire::{Side, Version};

/// Why a ticket of another process is not taken. A connection begins without it, with a full handshake.
#[derive(Clone, PartialEq, Debug, Error)]
#[non_exhaustive]
pub enum TicketImportError {
    /// They are something else, were cut short or changed, or another version of the library has made them.
    #[error("the bytes are no ticket of this version of the library, or were damaged")]
    NotATicket,
    /// The client resumes no sessions, or its configuration is one of rustls, which keeps tickets in its own store.
    #[error(
        "the configuration takes no tickets: it resumes no sessions, or is an application's own of rustls"
    )]
    Unsupported,
    /// Handlers of connections have a say in the server's certificate ([`CertificateReceived`](super::CertificateReceived)), and cannot be
    /// asked about that of a ticket.
    #[error(
        "the configuration takes no tickets of other processes: its handlers are asked about certificates (certificate_received)"
    )]
    AsksHandlers,
    /// Another server gave it out.
    #[error("the ticket is one of {0:?}, and serves no other server")]
    ServerName(String),
    /// The connection was one with another version of QUIC (RFC 9369 section 5).
    #[error("the ticket is of QUIC version {0:#010x}, and serves connections that begin in it alone")]
    Version(u32),
    /// The connection was one with an application protocol that the configuration does not have.
    #[error("the ticket is of application protocol {:?}, which the configuration does not have", String::from_utf8_lossy(.0))]
    Alpn(Vec<u8>),
    /// The configuration does not have the cipher suite of the session.
    #[error("the ticket is of cipher suite {0:?}, which the configuration does not have")]
    CipherSuite(CipherSuite),
    /// The client had another certificate, or none where it has one now, or one where it has none.
    #[error("the ticket is of a client with another certificate than the configuration's, or without one")]
    Identity,
    /// The server takes it no more, or the system's clock is wrong.
    #[error("the ticket has expired: it served {lifetime} s, and came {age} s ago")]
    Expired {
        /// How many seconds ago it came.
        age: u64,
        /// For how many seconds it served.
        lifetime: u32,
    },
    /// It came later than it is now.
    #[error("the ticket came {0} s after what the system's clock says: set the clock")]
    FromTheFuture(u64),
    /// The configuration does not trust the certificates that the server has shown, or not any more.
    #[error("the configuration does not trust the server of the ticket: {0}")]
    Untrusted(Error),
}

impl ClientTls {
    /// A ticket that [`ClientTicket::export`] has made bytes of, for a connection to this server which begins in this version. Takes some 0.3 ms.
    ///
    /// What is not checked is where the bytes come from: who can choose them can pass for the server. Keep them as a private key.
    ///
    /// # Errors
    ///
    /// Why the ticket does not serve this.
    pub fn import_ticket(
        &self,
        server_name: &ServerName<'_>,
        version: Version,
        bytes: &[u8],
    ) -> Result<ClientTicket, TicketImportError> {
        self.import_ticket_at(UnixTime::now().as_secs(), server_name, version, bytes)
    }

    /// The same at this time, in seconds of the Unix clock.
    pub(in crate::crypto) fn import_ticket_at(
        &self,
        now: u64,
        server_name: &ServerName<'_>,
        version: Version,
        bytes: &[u8],
    ) -> Result<ClientTicket, TicketImportError> {
        let maker = match &self.maker {
            Some(maker) if self.resumes => maker,
            _ => return Err(TicketImportError::Unsupported),
        };
        if maker.asks_handlers {
            return Err(TicketImportError::AsksHandlers);
        }
        let (origin, parameters) = TicketOrigin::decode(bytes).ok_or(TicketImportError::NotATicket)?;
        // In QUIC, 0-RTT is limited by flow control alone (RFC 9001 section 4.6.1). rustls takes 0 for none of it.
        let is_limited = !matches!(origin.message.early_data, None | Some(0 | u32::MAX));
        let is_odd = origin.message.ticket.is_empty() || is_limited;
        if is_odd || TransportParameters::decode(parameters, Side::Server).is_err() {
            return Err(TicketImportError::NotATicket);
        }
        let name = origin.server_name.to_str();
        if !name.eq_ignore_ascii_case(&server_name.to_str()) {
            return Err(TicketImportError::ServerName(name.into_owned()));
        }
        if origin.version != version {
            return Err(TicketImportError::Version(origin.version.number()));
        }
        if !self
            .config
            .alpn_protocols
            .iter()
            .any(|alpn| **alpn == *origin.alpn)
        {
            return Err(TicketImportError::Alpn(origin.alpn.into_vec()));
        }
        let suite = origin.suite;
        if !suite::quic_suites(self.config.crypto_provider())
            .any(|own| own.common.suite == suite.tls13().common.suite)
        {
            return Err(TicketImportError::CipherSuite(suite));
        }
        if origin.identity != maker.identity {
            return Err(TicketImportError::Identity);
        }
        let message = aged(&origin, now)?;
        let certificate = &self.config.client_auth_cert_resolver;
        let session = capture::outside(|| maker.session(certificate, &origin, message, parameters))
            .map_err(of_session)?;
        Ok(ClientTicket {
            session,
            version,
            origin: Some(Box::new(origin)),
        })
    }

    /// Of the certificate that is shown to servers, if that is known; `None`: sessions are not resumed with tickets of ours.
    pub(super) fn resumption_identity(&self) -> Option<Option<IdentityDigest>> {
        let identity = || self.maker.as_ref().map(|maker| maker.identity);
        self.resumes.then(identity)
    }
}

/// What a verifier says is about the server; all else about bytes of which rustls can make no session.
fn of_session(error: Error) -> TicketImportError {
    match error {
        Error::InvalidCertificate(_)
        | Error::InvalidCertRevocationList(_)
        | Error::General(_)
        | Error::Other(_) => TicketImportError::Untrusted(error),
        _ => TicketImportError::NotATicket,
    }
}

/// The message that gives out the ticket, as if it came now: its age is in what is added to that (RFC 8446 section 4.2.11.1).
fn aged(origin: &TicketOrigin, now: u64) -> Result<NewSessionTicket, TicketImportError> {
    let ahead = origin.received.saturating_sub(now);
    if ahead > CLOCK_TOLERANCE_SECS {
        return Err(TicketImportError::FromTheFuture(ahead));
    }
    let age = now.saturating_sub(origin.received);
    let lifetime = origin.message.lifetime.min(LIFETIME_MAX_SECS);
    // Never 0: rustls takes that for a ticket without an end.
    let left = match u32::try_from(age).ok().and_then(|age| lifetime.checked_sub(age)) {
        Some(left @ 1..) => left,
        _ => return Err(TicketImportError::Expired { age, lifetime }),
    };
    Ok(NewSessionTicket {
        lifetime: left,
        age_add: origin
            .message
            .age_add
            .wrapping_add((lifetime - left).wrapping_mul(1000)),
        ..origin.message.clone()
    })
}

/// A ticket lives so long at most (RFC 8446 section 4.6.1): seven days.
const LIFETIME_MAX_SECS: u32 = 7 * 24 * 3600;
/// Clocks of two machines that share tickets may differ by so much.
const CLOCK_TOLERANCE_SECS: u64 = 60;
