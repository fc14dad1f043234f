//! Resumption, and data before the handshake is complete: 0-RTT (RFC 9001 section 4.6, RFC 9000 section 7.4.1).
//!
//! A client with a ticket that allows it seals packets with early keys until it has others, under the transport parameters that it remembers. If the
//! server does not accept them, all of what was in them is sent again, as if it never had been.
//!
//! A server that finds a ticket in the ClientHello asks the application before it answers ([`Connection::complete_resumption`]). If it accepts
//! 0-RTT, it opens such packets, and answers them before it has heard the client's Finished: what it sends then is bounded by anti-amplification.

use std::mem;

use ringway_types::Instant;

use super::Connection;
use super::events::Event;
use super::receive::violation;
use super::resumption::{AfterHandshake, Early, ResumptionAnswer, TicketError};
use super::stats::ZeroRtt;
use crate::crypto::tickets::{IssueError, TicketIssuer};
use crate::crypto::tls::TlsSession;
use crate::wire::early_limits::EarlyLimits;
use crate::wire::error::TransportError;
use crate::wire::transport_parameters::TransportParameters;
use crate::wire::{Side, Space};

impl Connection {
    /// What became of 0-RTT, as far as it is known.
    pub fn zero_rtt(&self) -> ZeroRtt {
        self.content.stats.zero_rtt
    }
}

/// A client's side.
impl Connection {
    /// The client has made its first flight. If its ticket allows it, 0-RTT goes with it.
    pub(super) fn begin_early(&mut self, session: &TlsSession) -> Result<(), TransportError> {
        let Some(keys) = session.early_keys(self.version) else {
            return Ok(());
        };
        let Some(remembered) = session.peer_transport_parameters() else {
            return Ok(());
        };
        let remembered = TransportParameters::decode(remembered, Side::Server)?;
        self.path.mtu.limit(remembered.max_udp_payload_size);
        self.handshake.peer.max_datagram_frame_size = remembered.max_datagram_frame_size;
        self.content.datagrams.set_early(true);
        self.content.streams.begin_early(&remembered);
        self.content.stats.zero_rtt = ZeroRtt::Offered;
        let limits = EarlyLimits::of(&remembered);
        self.handshake.early = Some(Box::new(Early::Sealing { keys, limits }));
        Ok(())
    }

    /// 1-RTT keys are there: no packet is sealed with others any more. What the server has said of 0-RTT is known, and with it which of `params` and
    /// the remembered ones hold.
    pub(super) fn end_early(&mut self, params: &TransportParameters) -> Result<(), TransportError> {
        let accepted = self
            .handshake
            .tls
            .as_ref()
            .is_some_and(|tls| tls.is_early_data_accepted());
        self.content.datagrams.set_early(false);
        let sealed = Early::Sealed {
            first_one_rtt: self.recovery.next_number(Space::Data),
            rejected: !accepted,
        };
        let early = self
            .handshake
            .early
            .as_mut()
            .map(|early| mem::replace(&mut **early, sealed));
        match early {
            Some(Early::Sealing { limits, .. }) if accepted => {
                if !EarlyLimits::of(params).cover(&limits) {
                    return Err(violation("limits are lower than those of the accepted 0-RTT"));
                }
                self.content.stats.zero_rtt = ZeroRtt::Accepted;
                self.content.streams.accept_early(params);
            }
            Some(_) => {
                self.reject_early();
                self.content.streams.set_peer_params(params);
            }
            None => self.content.streams.set_peer_params(params),
        }
        Ok(())
    }

    /// The server has asked for another ClientHello, or another version, and takes no 0-RTT with it (section 4.6.2).
    pub(super) fn stop_early(&mut self) {
        if let Some(early) = &mut self.handshake.early
            && matches!(**early, Early::Sealing { .. })
        {
            **early = Early::Sealed {
                first_one_rtt: self.recovery.next_number(Space::Data),
                rejected: true,
            };
            self.reject_early();
            // As before the server has said what it takes.
            self.handshake.peer.max_datagram_frame_size = 0;
        }
    }

    /// All that was sent in 0-RTT is to be sent again, and is no sign of congestion.
    fn reject_early(&mut self) {
        self.content.stats.zero_rtt = ZeroRtt::Rejected;
        self.recovery.resend_all(Space::Data, &mut self.content);
        self.content.streams.reject_early();
    }

    /// An acknowledgement of 1-RTT packets arrived. True if it shows that the server has completed the handshake: it is for more than what was sent
    /// before.
    pub(super) fn confirms_handshake(&self, largest: u64) -> bool {
        match self.handshake.early.as_deref() {
            Some(Early::Sealed { first_one_rtt, .. }) => largest >= *first_one_rtt,
            _ => true,
        }
    }

    /// A server that has rejected 0-RTT has no packet to acknowledge below this one (section 4.6.2).
    pub(super) fn rejected_below(&self) -> Option<u64> {
        match self.handshake.early.as_deref() {
            Some(Early::Sealed {
                first_one_rtt,
                rejected: true,
            }) => Some(*first_one_rtt),
            _ => None,
        }
    }

    /// A message with a ticket may have come, after the handshake.
    pub(super) fn take_tickets(&mut self, data: &[u8]) -> Result<(), TransportError> {
        let Some(AfterHandshake::Receiver { session, left, .. }) = self.handshake.after.as_deref_mut() else {
            return Ok(());
        };
        let before = session.tickets_received();
        session.read(data)?;
        let came = session.tickets_received() - before;
        *left = left.saturating_sub(u8::try_from(came).unwrap_or(u8::MAX));
        let tickets = match &self.handshake.info {
            Some(info) => session.received_tickets(info),
            None => Vec::new(),
        };
        for ticket in tickets {
            self.content.events.push_back(Event::TicketReceived(ticket));
        }
        if *left == 0 {
            self.handshake.after = None;
        }
        Ok(())
    }
}

/// A server's side.
impl Connection {
    /// What the application says of the ticket that [`Event::Resuming`] is about. The handshake has waited for it.
    pub fn complete_resumption(&mut self, now: Instant, answer: ResumptionAnswer) {
        let Some(early) = self.handshake.early.take() else {
            return;
        };
        let (mut session, mut resumable) = match *early {
            Early::Asking { session, resumable } => (session, resumable),
            other => {
                self.handshake.early = Some(Box::new(other));
                return;
            }
        };
        if !self.is_open() {
            return;
        }
        match answer {
            ResumptionAnswer::Accept => session.resume(resumable),
            ResumptionAnswer::AcceptWithoutZeroRtt => {
                resumable.without_early_data();
                session.resume(resumable);
            }
            ResumptionAnswer::Refuse => {}
        }
        let result = self.start_server_session(now, session);
        self.check(now, result);
    }

    /// The ClientHello was read: from now on 0-RTT packets can be opened, or are not accepted.
    pub(super) fn on_hello_read(&mut self) {
        let Some(tls) = &self.handshake.tls else { return };
        self.content.stats.resumed = tls.is_resumed();
        if let Some(keys) = tls.early_keys(self.handshake.original_version) {
            self.content.stats.zero_rtt = ZeroRtt::Accepted;
            self.handshake.early = Some(Box::new(Early::Opening {
                keys: Box::new(keys.expand()),
                expires: None,
            }));
        }
    }

    /// A 0-RTT packet came, and cannot be opened.
    pub(super) fn on_early_dropped(&mut self) {
        if self.content.stats.zero_rtt == ZeroRtt::NotOffered {
            self.content.stats.zero_rtt = ZeroRtt::Rejected;
        }
    }

    /// The client has its 1-RTT keys, and sends no more 0-RTT packets: those under way have three probe timeouts (RFC 9001 section 4.9.3).
    pub(super) fn expire_early(&mut self, now: Instant) {
        let retention = self.recovery.pto(Space::Data) * 3;
        if let Some(Early::Opening { expires, .. }) = self.handshake.early.as_deref_mut() {
            *expires = Some(now + retention);
        }
    }

    /// When a server's keys of 0-RTT packets go, or the TLS session of a client that has waited for tickets.
    #[inline]
    pub(super) fn early_deadline(&self) -> Option<Instant> {
        match (self.handshake.early.as_deref(), self.handshake.after.as_deref()) {
            (Some(Early::Opening { expires, .. }), _) => *expires,
            (_, Some(AfterHandshake::Receiver { until, .. })) => Some(*until),
            _ => None,
        }
    }

    /// How many tickets the client may be given.
    pub fn tickets_left(&self) -> usize {
        self.issuer().map_or(0, TicketIssuer::len)
    }

    /// How much data of the application each of them may carry; `None`: there are none, or what is known of the client fits none.
    pub fn ticket_data_max(&self) -> Option<usize> {
        self.issuer()?.data_max()
    }

    fn issuer(&self) -> Option<&TicketIssuer> {
        match self.handshake.after.as_deref() {
            Some(AfterHandshake::Issuer(issuer)) => Some(issuer),
            _ => None,
        }
    }

    /// The time of [`early_deadline`](Self::early_deadline) is over.
    pub(super) fn on_early_timeout(&mut self) {
        match self.side {
            Side::Client => self.handshake.after = None,
            Side::Server => self.handshake.early = None,
        }
    }

    /// Gives the client a ticket for later connections, with data that [`Event::Resuming`] brings back then.
    ///
    /// # Errors
    /// There is none to give, now or at all.
    pub fn send_resumption_ticket(&mut self, data: &[u8]) -> Result<(), TicketError> {
        if self.side == Side::Client {
            return Err(TicketError::NotServer);
        }
        if !self.handshake.complete || !self.is_open() {
            return Err(TicketError::NotConnected);
        }
        let Some(AfterHandshake::Issuer(issuer)) = self.handshake.after.as_deref_mut() else {
            return Err(IssueError::NoTickets.into());
        };
        let message = issuer.issue(data)?;
        if issuer.is_empty() {
            self.handshake.after = None;
        }
        self.content.spaces[Space::Data].crypto.outgoing().extend(message);
        Ok(())
    }
}
