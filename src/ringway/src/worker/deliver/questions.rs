//! Events that ask the application: whether a session is resumed, whether the peer is trusted; and tickets, which are kept when it has seen them.

use ringway_engine::connection::resumption::ResumptionAnswer;
use ringway_types::Instant;
use rustls::pki_types::CertificateDer;

use super::super::events::{ConnectionEvent, EventStatus};
use super::super::hosted_connection::HostedConnection;
use super::super::known::Question;
use super::super::ticket_store::{ResumptionTicket, TicketScope};

impl HostedConnection {
    /// Asks the application about a ticket of a client.
    pub(super) fn deliver_resumed(self: Box<Self>, now: Instant, data: &[u8]) -> Box<Self> {
        self.shared().known.ask(Question::Ticket);
        let (mut hosted, status) = self.call_connection(now, ConnectionEvent::Resumed { data });
        let answer = match status {
            EventStatus::Pending => return hosted,
            EventStatus::Refuse(_) => ResumptionAnswer::Refuse,
            EventStatus::Done | EventStatus::Continue(_) | EventStatus::Consumed(_) => {
                ResumptionAnswer::Accept
            }
        };
        // The handler may have answered already.
        if hosted.shared().known.answer(Question::Ticket) {
            hosted.guarded(now, |hosted| hosted.engine.complete_resumption(now, answer));
        }
        hosted
    }

    /// Keeps a ticket of the server.
    pub(super) fn deliver_ticket(self: Box<Self>, now: Instant, ticket: ResumptionTicket) -> Box<Self> {
        let event = ConnectionEvent::ResumptionTicketReceived(&ticket);
        let (hosted, _) = self.call_connection(now, event);
        if let Some(destination) = &hosted.tickets {
            let scope = TicketScope {
                version: ticket.0.version(),
                ..destination.scope.clone()
            };
            destination.put(&scope, ticket);
        }
        hosted
    }

    /// Asks the application about the peer's certificate.
    pub(super) fn deliver_peer_certificate(
        self: Box<Self>,
        now: Instant,
        chain: &[CertificateDer<'static>],
        deferred_error: Option<&str>,
    ) -> Box<Self> {
        let event = ConnectionEvent::PeerCertificateReceived {
            chain,
            deferred_error,
        };
        self.shared().known.ask(Question::Certificate);
        let (mut hosted, status) = self.call_connection(now, event);
        let valid = match status {
            EventStatus::Pending => return hosted,
            EventStatus::Refuse(_) => false,
            EventStatus::Done | EventStatus::Continue(_) | EventStatus::Consumed(_) => {
                deferred_error.is_none()
            }
        };
        // The handler may have answered already.
        if hosted.shared().known.answer(Question::Certificate) {
            hosted.guarded(now, |hosted| hosted.engine.set_certificate_valid(now, valid));
        }
        hosted
    }
}
