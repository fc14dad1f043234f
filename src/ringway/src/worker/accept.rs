//! Packets with a long header that belong to no connection yet: new connections, and the replies that need none.
//!
//! Whatever can be decided without a connection is decided before one is made.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use ringway_datapath::lent::Lender;
use ringway_datapath::meta::ReceiveMeta;
use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::drops::DropReason;
use ringway_engine::connection::{self as engine, FirstPacket, LocalCid, ServerStart};
use ringway_engine::crypto::token::{Token, TokenError, TokenId};
use ringway_engine::crypto::{refusal, retry};
use ringway_engine::wire::Version;
use ringway_engine::wire::cid::ConnectionId;
use ringway_engine::wire::error::{TransportError, TransportErrorCode};
use ringway_engine::wire::header::{self, LongHeader, LongType, ProtectedHeader};
use ringway_engine::wire::stateless;
use ringway_types::{Ecn, Instant, LOCAL_CID_LEN, PortId};

use super::admission::Admission;
use super::events::{Incoming, ListenerEvent};
use super::handles::{Connection, ConnectionShared};
use super::hosted_connection::HostedConnection;
use super::listener::{ListenerEntry, RetryPolicy};
use super::receive::path_of;
use super::unix_time::unix_time_secs;
use super::{Worker, current};

/// The smallest datagram that may carry a client's Initial (RFC 9000 section 14.1).
const INITIAL_DATAGRAM_MIN: usize = 1200;
/// The shortest connection ID that a client may choose for its first Initial (RFC 9000 section 7.2).
const INITIAL_CID_MIN: usize = 8;

impl Worker {
    /// Handles a packet with a long header whose connection ID is not routed.
    pub(super) fn on_long_header(
        &mut self,
        now: Instant,
        meta: &ReceiveMeta,
        datagram: &mut [u8],
        may_hand_over: bool,
    ) {
        let reason = match header::decode(datagram, LOCAL_CID_LEN) {
            Ok(ProtectedHeader::Long(header)) if header.ty == LongType::Initial => {
                // A client's first packets carry a connection ID of its own choice.
                match self.routes.initial(meta.remote, &header.dcid) {
                    Some(index) => return self.receive_initial(now, index, meta, datagram),
                    None => self.on_unknown_initial(now, meta, datagram, &header, may_hand_over),
                }
            }
            Ok(ProtectedHeader::Long(header)) => match self.routes.initial(meta.remote, &header.dcid) {
                Some(index) => return self.receive_initial(now, index, meta, datagram),
                None => Err(DropReason::UnknownConnection),
            },
            Ok(ProtectedHeader::UnsupportedVersion(unsupported)) => {
                let dcid = &datagram[unsupported.dcid.clone()];
                let scid = &datagram[unsupported.scid.clone()];
                if self.listener_on(meta).is_some() && datagram.len() >= INITIAL_DATAGRAM_MIN {
                    self.stateless
                        .push(meta, |out| {
                            stateless::version_negotiation(
                                out,
                                dcid,
                                scid,
                                &Version::SUPPORTED,
                                &mut self.rng,
                            )
                        })
                        .map(|()| self.stats.version_negotiations += 1)
                } else {
                    Err(DropReason::UnsupportedVersion)
                }
            }
            Ok(ProtectedHeader::VersionNegotiation(_)) => Err(DropReason::UnexpectedVersionNegotiation),
            Ok(_) => Err(DropReason::UnknownConnection),
            Err(_) => Err(DropReason::MalformedHeader),
        };
        if let Err(reason) = reason {
            self.drop_datagram(meta, reason);
        }
    }

    /// Counts a datagram that is dropped before there is a connection for it.
    pub(super) fn drop_datagram(&mut self, meta: &ReceiveMeta, reason: DropReason) {
        self.stats.drops.add(reason);
        if let Some(entry) = self.listener_on(meta) {
            entry.listener.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn listener_on(&self, meta: &ReceiveMeta) -> Option<&ListenerEntry> {
        self.listeners.iter().find(|entry| entry.port.id == meta.port)
    }

    /// A listener has stopped on this port, and connections are there still.
    pub(super) fn is_left(&self, port: PortId) -> bool {
        self.left_ports
            .iter()
            .filter_map(Weak::upgrade)
            .any(|left| left.id == port)
    }

    /// The strictest of the listeners on a port: which of them a client wants is known only later.
    fn retry_policy_on(&self, port: PortId) -> RetryPolicy {
        let listeners = self.listeners.iter().filter(|entry| entry.port.id == port);
        let policies = listeners.map(|entry| entry.listener.retry);
        policies.max().unwrap_or_default()
    }

    fn receive_initial(&mut self, now: Instant, index: u32, meta: &ReceiveMeta, datagram: &mut [u8]) {
        let Some(mut hosted) = self.take(index) else {
            return;
        };
        hosted = self.receive_datagram(now, hosted, &path_of(meta), meta.ecn, datagram, Lender::nobody());
        self.put_back(now, index, hosted);
    }

    /// Handles an Initial packet whose connection ID is not known here. It may be one that another partition has issued, in a handshake that began
    /// there before the NIC or the system brought the flow here: a client's first connection ID and ours look alike. What cannot begin a
    /// connection here goes to the partition that it seems to name, once.
    fn on_unknown_initial(
        &mut self,
        now: Instant,
        meta: &ReceiveMeta,
        datagram: &mut [u8],
        header: &LongHeader,
        may_hand_over: bool,
    ) -> Result<(), DropReason> {
        let cid = header.dcid.as_bytes();
        let named = self.partitioning.partition_of(cid).filter(|&partition| {
            may_hand_over
                && cid.len() == LOCAL_CID_LEN
                && partition != self.inbox.partition
                && datagram.len() >= INITIAL_DATAGRAM_MIN
                && self.inboxes[partition].has_place_for_strangers()
        });
        let Some(named) = named else {
            return self.on_initial(now, meta, datagram, header, false);
        };
        // It is decrypted in place, and what cannot be is counted: where it belongs nothing may be amiss.
        let (original, drops) = (datagram.to_vec(), self.stats.drops);
        match self.on_initial(now, meta, datagram, header, true) {
            Err(DropReason::InvalidInitial | DropReason::InvalidToken) => {
                self.stats.drops = drops;
                self.hand_over(now, named, meta, &original, false);
                Ok(())
            }
            result => result,
        }
    }

    /// Handles a client's first packet. `elsewhere`: if its token is not valid, another partition may say so.
    fn on_initial(
        &mut self,
        now: Instant,
        meta: &ReceiveMeta,
        datagram: &mut [u8],
        header: &LongHeader,
        elsewhere: bool,
    ) -> Result<(), DropReason> {
        if datagram.len() < INITIAL_DATAGRAM_MIN {
            return Err(DropReason::InitialTooShort);
        }
        if header.dcid.len() < INITIAL_CID_MIN {
            return Err(DropReason::InitialCidTooShort);
        }
        let Some(entry) = self.listener_on(meta) else {
            if self.is_left(meta.port) {
                self.refuse(meta, header, TransportErrorCode::CONNECTION_REFUSED)?;
            }
            return Err(DropReason::NoListener);
        };
        if let Some(only) = entry.listener.only
            && only != self.inbox.partition
        {
            // It was brought here because it might have been an answer to one of ours.
            self.hand_over(now, only, meta, datagram, true);
            return Ok(());
        }
        let (port, may_move) = (Arc::clone(&entry.port), entry.listener.only.is_none());
        let retry_policy = self.retry_policy_on(meta.port);
        let unix_time = unix_time_secs();
        let token = &datagram[header.token.clone()];
        let Ok(address) = self.check_token(unix_time, meta, header, token) else {
            if !elsewhere {
                self.refuse(meta, header, TransportErrorCode::INVALID_TOKEN)?;
            }
            return Err(DropReason::InvalidToken);
        };
        if self.memory.is_full() || self.is_overloaded() || self.inbox.is_stopping() {
            self.refuse(meta, header, TransportErrorCode::CONNECTION_REFUSED)?;
            return Err(DropReason::Overloaded);
        }
        let mut admission = self.handshakes.admission(meta.remote.ip(), address.validated);
        if admission == Admission::Admit && self.slots.len() >= self.connections_max {
            admission = self.handshakes.oldest_replaceable();
        }
        let must_retry = match retry_policy {
            RetryPolicy::Never => false,
            RetryPolicy::Always => true,
            RetryPolicy::UnderLoad => {
                self.handshakes.len() >= self.handshakes_before_retry || admission == Admission::SourceFull
            }
        };
        if must_retry && !address.validated {
            let first = FirstPacket {
                version: header.version,
                dcid: header.dcid,
                scid: header.scid,
            };
            return self.send_retry(unix_time, meta, &first);
        }
        match admission {
            Admission::Admit => {}
            Admission::Replace(oldest) => self.give_up_handshake(now, oldest),
            Admission::SourceFull => return Err(DropReason::SourceFull),
            Admission::Full => return Err(DropReason::Overloaded),
        }
        let index = self.slots.vacant_key() as u32;
        let (cid, reset_token) = self.new_local_cid(index);
        let start = ServerStart {
            version: header.version,
            peer_cid: header.scid,
            original_dcid: address.original_dcid,
            initial_dcid: header.dcid,
            retry_scid: address.retry_scid,
            address_validated: address.validated,
            path: path_of(meta),
            local_cid: LocalCid {
                cid,
                token: reset_token,
            },
        };
        let engine = engine::Connection::server(now, &start, engine::seed(&mut self.rng));
        let shared = ConnectionShared::new(&self.inboxes, self.inbox.partition, meta.local, meta.remote);
        let mut hosted = HostedConnection::new(engine, Connection::of_worker(&shared), port, None);
        hosted.may_move = may_move;
        let hosted = self.receive_datagram(now, hosted, &start.path, meta.ecn, datagram, Lender::nobody());
        if !hosted.engine.has_received() {
            // Not even its first packet could be decrypted, so nothing was promised to anybody.
            self.routes.remove_local_cid(&cid);
            return Err(DropReason::InvalidInitial);
        }
        self.stats.accepted += 1;
        if let Some(id) = address.redeems {
            self.tokens.redeem(unix_time, id);
        }
        let handshake = self.handshakes.begin(index, meta.remote.ip(), address.validated);
        self.insert(now, hosted, Some((meta.remote, header.dcid)), Some(handshake));
        self.follow_load();
        Ok(())
    }

    /// Gives up a client's handshake, so that another client can begin one.
    fn give_up_handshake(&mut self, now: Instant, index: u32) {
        self.stats.handshakes_replaced += 1;
        if let Some(mut hosted) = self.take(index) {
            hosted.engine.abandon(CloseReason::Overloaded);
            self.put_back(now, index, hosted);
        }
    }

    /// Refuses a client without keeping anything of it, so that it need not wait to find out: that its Retry token is not
    /// valid, say (RFC 9000 section 8.1.2).
    fn refuse(
        &mut self,
        meta: &ReceiveMeta,
        header: &LongHeader,
        code: TransportErrorCode,
    ) -> Result<(), DropReason> {
        self.stateless.push(meta, |out| {
            refusal::initial_close(out, header.version, &header.dcid, &header.scid, code)
        })?;
        self.stats.refusals += 1;
        Ok(())
    }

    /// What the token of a client's first packet says of its address. An error: it is a Retry token that is not valid.
    fn check_token(
        &mut self,
        unix_time: u64,
        meta: &ReceiveMeta,
        header: &LongHeader,
        token: &[u8],
    ) -> Result<AddressValidation, TokenError> {
        let opened = self
            .tokens
            .open(unix_time, header.version, meta.remote, token, &header.dcid)?;
        Ok(AddressValidation {
            original_dcid: match opened {
                Some(Token::Retry { original_dcid }) => original_dcid,
                _ => header.dcid,
            },
            retry_scid: matches!(opened, Some(Token::Retry { .. })).then_some(header.dcid),
            // Without a token, or with one that is not ours, it is not (RFC 9000 section 8.1.3).
            validated: opened.is_some(),
            redeems: match opened {
                Some(Token::NewToken { id }) => Some(id),
                _ => None,
            },
        })
    }

    fn send_retry(
        &mut self,
        unix_time: u64,
        meta: &ReceiveMeta,
        first: &FirstPacket,
    ) -> Result<(), DropReason> {
        let mut scid = [0; LOCAL_CID_LEN];
        rand::Rng::fill_bytes(&mut self.rng, &mut scid);
        self.partitioning.write(self.inbox.partition, &mut scid);
        let scid = ConnectionId::new(&scid).expect("8 bytes are within the limit of 20");
        let token = self
            .tokens
            .seal_retry(unix_time, first.version, meta.remote, &first.dcid, &scid);
        self.stateless.push(meta, |out| {
            let len = stateless::retry(out, first.version, &first.scid, &scid, &token);
            let tag = retry::integrity_tag(first.version, &first.dcid, &out[..len]);
            out[len..len + tag.len()].copy_from_slice(&tag);
            Some(len + tag.len())
        })?;
        self.stats.retries += 1;
        Ok(())
    }

    /// Offers a connection whose ClientHello is complete to the listener of its application protocol.
    pub(super) fn offer_to_listener(
        &mut self,
        now: Instant,
        mut hosted: Box<HostedConnection>,
    ) -> Box<HostedConnection> {
        let Some(hello) = hosted.engine.take_client_hello() else {
            return hosted;
        };
        let path = hosted.engine.path();
        let mut listeners = self
            .listeners
            .iter()
            .filter(|entry| entry.port.id == path.port)
            .map(|entry| &entry.listener);
        // The listener's order of preference decides (RFC 7301 section 3.2).
        let found = listeners.clone().find_map(|listener| {
            let alpn = listener.alpns.iter().find(|alpn| hello.alpns.contains(alpn))?;
            Some((Arc::clone(listener), alpn.clone()))
        });
        let Some((listener, alpn)) = found else {
            let error = match listeners.next() {
                // TLS alert no_application_protocol (RFC 7301 section 3.2, RFC 9001 section 8.1).
                Some(listener) => {
                    listener.counters.rejected.fetch_add(1, Ordering::Relaxed);
                    self.stats.no_common_protocol += 1;
                    TransportError::new(
                        TransportErrorCode::crypto(120),
                        "no listener has an application protocol of the client's",
                    )
                }
                None => {
                    TransportError::new(TransportErrorCode::CONNECTION_REFUSED, "nobody listens any more")
                }
            };
            hosted.guarded(now, |hosted| hosted.engine.refuse(now, error));
            return hosted;
        };
        let incoming = Incoming {
            connection: Arc::clone(hosted.shared()),
            hello: Box::new(hello),
            version: hosted.engine.version(),
            local: path.local,
            remote: path.remote,
            alpn,
            listener: Arc::clone(&listener),
            address_validated: hosted.engine.is_address_validated(),
            open: true,
        };
        // The current connection, as in its own events, so that accepting it here takes effect at once.
        let (mut hosted, ()) = current::scope(hosted, now, || {
            listener.call(ListenerEvent::NewConnection(incoming))
        });
        if let Some(first) = hosted.retry.take() {
            let meta = ReceiveMeta {
                port: path.port,
                remote: path.remote,
                local: path.local,
                ecn: Ecn::NotEct,
                segment_size: 0,
            };
            if let Err(reason) = self.send_retry(unix_time_secs(), &meta, &first) {
                self.stats.drops.add(reason);
            }
        }
        hosted
    }

    /// Tells listeners when handshakes begin or cease to be so many that clients must prove their addresses.
    #[inline]
    pub(super) fn follow_load(&mut self) {
        let under_load = self.handshakes.len() >= self.handshakes_before_retry;
        if under_load != self.under_load {
            self.tell_load(under_load);
        }
    }

    #[cold]
    fn tell_load(&mut self, under_load: bool) {
        self.under_load = under_load;
        let partition = self.inbox.partition;
        for entry in &self.listeners {
            entry.listener.call(ListenerEvent::LoadChanged {
                partition,
                under_load,
            });
        }
    }

    /// Replies to a packet of an unknown connection with a stateless reset (RFC 9000 section 10.3).
    pub(super) fn reset_peer(&mut self, meta: &ReceiveMeta, datagram: &[u8]) {
        self.drop_datagram(meta, DropReason::UnknownConnection);
        let Some(cid) = header::destination_cid(datagram, LOCAL_CID_LEN) else {
            return;
        };
        let token = self.reset_key.token(cid);
        let sent = self.stateless.push(meta, |out| {
            stateless::reset(out, datagram.len(), &token, &mut self.rng)
        });
        match sent {
            Ok(()) => self.stats.stateless_resets += 1,
            Err(reason) => self.stats.drops.add(reason),
        }
    }
}

/// What is known of the address of a client that wants to connect.
struct AddressValidation {
    /// The connection ID of the client's very first packet.
    original_dcid: ConnectionId,
    /// The connection ID that our Retry gave it, if it has answered one.
    retry_scid: Option<ConnectionId>,
    /// The client has proven that it receives packets there.
    validated: bool,
    /// By a token that serves once.
    redeems: Option<TokenId>,
}
