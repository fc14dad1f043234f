//! The TLS handshake inside of the connection: CRYPTO data in and out, keys as they come, transport parameters, and
//! confirmation (RFC 9001 section 4).

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use ringway_types::Instant;

use super::Connection;
use super::config::Config;
use super::crypto_stream;
use super::events::Event;
use super::handshake::{FirstPacket, PeerParams, Verdict};
use super::resumption::{AfterHandshake, Early, TICKETS_MAX};
use crate::crypto::client_hello::{self, ClientHelloInfo};
use crate::crypto::tls::{KeyChange, ServerTls, TlsSession};
use crate::path::ecn::EcnValidation;
use crate::recovery::ack_tracker::AckTracker;
use crate::wire::early_limits::EarlyLimits;
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::transport_parameters::TransportParameters;
use crate::wire::{Side, Space};

impl Connection {
    /// What the ClientHello asks for, once it is complete. Returned once; [`Connection::accept`] or [`Connection::refuse`] must follow,
    /// now or later.
    pub fn take_client_hello(&mut self) -> Option<ClientHelloInfo> {
        self.handshake.hello_info.take().map(|info| *info)
    }

    /// The ClientHello as it came, without the header of its record; `None` if it is not complete, or the connection was accepted.
    pub fn client_hello(&self) -> Option<&[u8]> {
        let hello = &self.handshake.hello[..];
        let (&[_, a, b, c], _) = hello.split_first_chunk::<4>()?;
        hello.get(..4 + u32::from_be_bytes([0, a, b, c]) as usize)
    }

    /// The client's first packet, as far as a Retry needs to know it; `None` if it is too late for one (nothing may have been sent: RFC 9000 section
    /// 17.2.5.2), or the client has proven its address.
    pub fn may_retry(&self) -> Option<FirstPacket> {
        let is_fresh = self.side == Side::Server && self.handshake.tls.is_none() && self.is_open();
        let unanswered = self.content.stats.sent_packets == 0 && !self.path.validated;
        (is_fresh && unanswered).then(|| FirstPacket {
            version: self.handshake.original_version,
            dcid: self.handshake.original_dcid,
            scid: *self.content.remote_cids.first(),
        })
    }

    /// Accepts the connection of a client with this configuration.
    pub fn accept(&mut self, now: Instant, config: Arc<Config>, tls: &ServerTls) {
        if self.handshake.tls.is_some() || self.handshake.early.is_some() || !self.is_open() {
            return;
        }
        self.set_server_config(now, config);
        let result = self.begin_server(now, tls);
        self.check(now, result);
    }

    fn begin_server(&mut self, now: Instant, tls: &ServerTls) -> Result<(), TransportError> {
        if !self.negotiate_version(now)? {
            return Ok(());
        }
        let mut rng = self.random();
        let params = TransportParameters {
            original_destination_connection_id: Some(self.handshake.original_dcid),
            retry_source_connection_id: self.handshake.retry_scid,
            stateless_reset_token: Some(self.content.local_cids.first().token),
            ..self.local_parameters(&mut rng)
        };
        let mut encoded = Vec::new();
        params.encode(&mut encoded, &mut rng);
        let session = Box::new(TlsSession::server(tls, self.version, encoded)?);
        let limits = EarlyLimits::of(&params);
        if let Some(resumable) =
            tls.resumable(&self.handshake.hello, self.handshake.original_version, &limits)
        {
            let data = resumable.data().to_vec();
            self.content.stats.resumption_attempted = true;
            self.content.events.push_back(Event::Resuming(data));
            self.handshake.early = Some(Box::new(Early::Asking { session, resumable }));
            return Ok(());
        }
        self.start_server_session(now, session)
    }

    /// Reads the ClientHello.
    pub(super) fn start_server_session(
        &mut self,
        now: Instant,
        session: Box<TlsSession>,
    ) -> Result<(), TransportError> {
        self.handshake.tls = Some(session);
        let hello = mem::take(&mut self.handshake.hello);
        self.feed_tls(now, Space::Initial, &hello)?;
        self.on_hello_read();
        self.advance_handshake(now)
    }

    /// The configuration is known only now: what depended on it so far is made again.
    pub(super) fn set_server_config(&mut self, now: Instant, config: Arc<Config>) {
        self.path.mtu = config.mtu_discovery(self.path.address.remote.is_ipv6());
        self.path.controller = config.controller(self.path.mtu.current());
        self.path.ecn = EcnValidation::new(config.ecn);
        self.content.streams.set_config(config.streams);
        self.content.spaces[Space::Data].acks = AckTracker::new(config.max_ack_delay);
        self.config = config;
        self.idle.restart(now);
    }

    /// Our transport parameters, with what both sides send.
    pub(super) fn local_parameters(&self, rng: &mut impl Rng) -> TransportParameters {
        TransportParameters {
            initial_source_connection_id: Some(self.content.local_cids.first().cid),
            version_information: Some(self.version_information(rng)),
            ..self.config.transport_parameters()
        }
    }

    /// CRYPTO data arrived.
    pub(super) fn on_crypto(
        &mut self,
        now: Instant,
        space: Space,
        offset: u64,
        data: &[u8],
    ) -> Result<(), TransportError> {
        if self.handshake.complete {
            return self.on_late_crypto(space, offset, data);
        }
        if space == Space::Initial {
            self.on_initial_crypto()?;
        }
        let stream = &mut self.content.spaces[space].crypto;
        let Some(data) = stream.receive(offset, data)? else {
            return Ok(());
        };
        if self.handshake.tls.is_none() {
            // Nothing takes it out before the connection is accepted: what is kept is bounded (RFC 9000 section 7.5).
            if self.handshake.hello.len() + data.len() > crypto_stream::BUFFER_MAX {
                return Err(TransportError::new(
                    TransportErrorCode::CRYPTO_BUFFER_EXCEEDED,
                    "more handshake data than is kept before the connection is accepted",
                ));
            }
            self.handshake.hello.extend_from_slice(&data);
            if !self.handshake.has_hello
                && let Some(mut info) = client_hello::peek(&self.handshake.hello)?
            {
                self.handshake.client_versions = info.versions.take().map(Box::new);
                self.handshake.has_hello = true;
                self.handshake.hello_info = Some(Box::new(info));
            }
            return Ok(());
        }
        self.feed_tls(now, space, &data)?;
        self.advance_handshake(now)
    }

    /// After the handshake a server has nothing to hear; a client hears of session tickets, which it has no use for.
    fn on_late_crypto(&mut self, space: Space, offset: u64, data: &[u8]) -> Result<(), TransportError> {
        if space != Space::Data {
            return Ok(());
        }
        if self.side == Side::Server {
            return Err(TransportError::new(
                TransportErrorCode::crypto(ALERT_UNEXPECTED_MESSAGE),
                "TLS message after the handshake",
            ));
        }
        let Some(late) = &mut self.handshake.late else {
            return Ok(());
        };
        let stream = &mut self.content.spaces[space].crypto;
        match stream.receive(offset, data) {
            Ok(Some(data)) => {
                late.read(&data)?;
                self.take_tickets(&data)
            }
            Ok(None) => Ok(()),
            // What cannot be kept after the handshake may be discarded, with all that follows it (RFC 9000 section 7.5).
            Err(_) => {
                self.handshake.late = None;
                self.handshake.after = None;
                stream.forget_received();
                Ok(())
            }
        }
    }

    pub(super) fn feed_tls(
        &mut self,
        _now: Instant,
        space: Space,
        data: &[u8],
    ) -> Result<(), TransportError> {
        // Data of an earlier space that comes after a key change is a protocol error (RFC 9001 section 4.1.3); rustls cannot
        // tell spaces apart.
        if space < self.read_space() && !data.is_empty() {
            return Err(TransportError::new(
                TransportErrorCode::PROTOCOL_VIOLATION,
                "handshake data of a space that is done",
            ));
        }
        let Some(tls) = &mut self.handshake.tls else {
            return Ok(());
        };
        tls.read(data)?;
        if let Some(received) = self.content.stats.tls_received.get_mut(space as usize) {
            *received += data.len() as u32;
        }
        self.ask_about_certificate();
        Ok(())
    }

    fn read_space(&self) -> Space {
        if self.handshake.handshake.is_some() {
            Space::Handshake
        } else {
            Space::Initial
        }
    }

    /// Takes handshake data and keys from the TLS session.
    pub(super) fn advance_handshake(&mut self, now: Instant) -> Result<(), TransportError> {
        // Until the application has said that it trusts the peer, nothing of TLS leaves: no Finished, no key, no ticket.
        if self.handshake.verdict == Verdict::Awaited {
            return Ok(());
        }
        loop {
            let Some(tls) = &mut self.handshake.tls else {
                return Ok(());
            };
            let space = self.handshake.write_space;
            let before = self.content.spaces[space].crypto.written();
            let out = self.content.spaces[space].crypto.outgoing();
            let change = tls.write(out)?;
            let written = self.content.spaces[space].crypto.written();
            if let Some(sent) = self.content.stats.tls_sent.get_mut(space as usize) {
                *sent += (written - before) as u32;
            }
            match change {
                Some(KeyChange::Handshake(keys)) => {
                    self.content.stats.initial_flight = Some(now);
                    self.handshake.handshake = Some(keys);
                    self.handshake.write_space = Space::Handshake;
                }
                Some(KeyChange::OneRtt(mut keys)) => {
                    keys.set_update_after(self.config.packets_per_key);
                    self.handshake.one_rtt = Some(keys);
                    self.handshake.write_space = Space::Data;
                }
                None => {
                    // Another ClientHello, as the server has asked for one (RFC 9001 section 4.6.2).
                    if space == Space::Initial && before > 0 && written > before {
                        self.stop_early();
                    }
                    break;
                }
            }
        }
        self.take_peer_parameters()?;
        let done = self
            .handshake
            .tls
            .as_ref()
            .is_some_and(|tls| !tls.is_handshaking());
        if done && self.handshake.one_rtt.is_some() {
            self.on_handshake_complete(now)?;
        } else {
            self.update_datagram_state();
        }
        Ok(())
    }

    fn take_peer_parameters(&mut self) -> Result<(), TransportError> {
        if self.handshake.peer.known || (self.handshake.remembers && self.handshake.one_rtt.is_none()) {
            return Ok(());
        }
        let Some(bytes) = self
            .handshake
            .tls
            .as_ref()
            .and_then(|tls| tls.peer_transport_parameters())
        else {
            return Ok(());
        };
        let params = TransportParameters::decode(bytes, self.side.peer())?;
        let invalid = |reason| {
            Err(TransportError::new(
                TransportErrorCode::TRANSPORT_PARAMETER_ERROR,
                reason,
            ))
        };
        // RFC 9000 section 7.3.
        if params.initial_source_connection_id != Some(*self.content.remote_cids.first()) {
            return invalid("initial_source_connection_id does not match the packets");
        }
        self.check_versions(params.version_information.as_ref())?;
        self.handshake.restart = None;
        if self.side.is_client() {
            if params.original_destination_connection_id != Some(self.handshake.original_dcid) {
                return invalid("original_destination_connection_id does not match our first packet");
            }
            if params.retry_source_connection_id != self.handshake.retry_scid {
                return invalid("retry_source_connection_id does not match the Retry");
            }
        }
        self.handshake.peer = PeerParams {
            known: true,
            max_idle_timeout_ms: params.max_idle_timeout_ms,
            ack_delay_exponent: params.ack_delay_exponent,
            max_datagram_frame_size: params.max_datagram_frame_size,
            grease_quic_bit: params.grease_quic_bit,
        };
        self.recovery
            .set_max_ack_delay(Duration::from_millis(params.max_ack_delay_ms));
        if params.min_ack_delay_us.is_some() {
            self.content.ack_frequency.allow(params.max_ack_delay_ms);
        }
        self.path.mtu.limit(params.max_udp_payload_size);
        self.content
            .local_cids
            .set_peer_limit(params.active_connection_id_limit);
        if let Some(token) = params.stateless_reset_token {
            self.content.remote_cids.set_first_token(token);
        }
        if let Some(preferred) = &params.preferred_address {
            self.content
                .remote_cids
                .add_preferred(preferred.cid, preferred.reset_token)?;
        }
        match self.side {
            Side::Client => self.end_early(&params),
            Side::Server => {
                self.content.streams.set_peer_params(&params);
                Ok(())
            }
        }
    }

    fn on_handshake_complete(&mut self, now: Instant) -> Result<(), TransportError> {
        if !self.handshake.peer.known {
            return Err(TransportError::new(
                TransportErrorCode::crypto(ALERT_MISSING_EXTENSION),
                "no transport parameters",
            ));
        }
        // Nothing of TLS is needed any more: its memory goes.
        let Some(tls) = self.handshake.tls.take() else {
            return Ok(());
        };
        let info = tls.info();
        if info.alpn.is_none() {
            return Err(TransportError::new(
                TransportErrorCode::crypto(ALERT_NO_APPLICATION_PROTOCOL),
                "no application protocol was agreed on",
            ));
        }
        let info = Arc::new(info);
        self.handshake.info = Some(Arc::clone(&info));
        self.handshake.complete = true;
        self.content.stats.handshake = Some(now);
        self.content.stats.resumed = info.resumed;
        self.content.events.push_back(Event::Connected(info));
        self.handshake.after = match self.side {
            Side::Client if tls.takes_tickets() && !self.config.ticket_wait.is_zero() => {
                Some(AfterHandshake::Receiver {
                    session: tls,
                    left: TICKETS_MAX,
                    until: now + self.config.ticket_wait,
                })
            }
            Side::Client => None,
            Side::Server => {
                self.expire_early(now);
                let limits = EarlyLimits::of(&self.config.transport_parameters());
                tls.into_ticket_issuer(limits).map(AfterHandshake::Issuer)
            }
        }
        .map(Box::new);
        self.update_datagram_state();
        self.idle.restart(now);
        if self.side == Side::Server {
            self.content.handshake_done = true;
            self.confirm_handshake();
        }
        Ok(())
    }

    /// RFC 9001 section 4.1.2. Handshake keys go (section 4.9.2).
    pub(super) fn confirm_handshake(&mut self) {
        // A peer that says so before our last handshake message has left says what it cannot know (section 19.20): without that message the
        // handshake could not end, so it is kept.
        let unsent = self.content.spaces[Space::Handshake].crypto.has_unsent();
        if !self.handshake.complete || unsent || mem::replace(&mut self.handshake.confirmed, true) {
            return;
        }
        self.handshake.validated_by_peer = true;
        if self.side.is_client() {
            self.handshake.early = None;
        }
        self.discard(Space::Initial);
        self.discard(Space::Handshake);
    }

    /// Keys of a space go, and everything that was sent with them.
    pub(super) fn discard(&mut self, space: Space) {
        match space {
            Space::Initial => {
                self.handshake.initial = None;
                self.handshake.original_initial = None;
            }
            Space::Handshake => self.handshake.handshake = None,
            Space::Data => {}
        }
        self.recovery.discard(space);
        self.content.spaces.discard(space);
        self.probes[space as usize] = 0;
    }
}

/// TLS alerts (RFC 8446 section 6).
const ALERT_UNEXPECTED_MESSAGE: u8 = 10;
const ALERT_MISSING_EXTENSION: u8 = 109;
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;
