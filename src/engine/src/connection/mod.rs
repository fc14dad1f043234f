//! One QUIC connection: protocol without I/O, clock and threads.
//!
//! A caller works it through four doors, all of which take the time: [`Connection::receive`] with datagrams,
//! [`Connection::transmit`] for datagrams to send, [`Connection::on_timeout`] at the [`Connection::deadline`], and the
//! calls of the application. What the application should hear comes out of [`Connection::next_event`], of
//! `streams_mut().next_event()`, and of [`Connection::receive_next`].
//!
//! | part | what it is |
//! |---|---|
//! | `receive` | a datagram's way in |
//! | `transmit` | a datagram's way out |
//! | `content` | sources of frames, and what becomes of frames |
//! | `ack_frequency` | when the peer should acknowledge |
//! | `handshake`, `tls` | keys and what was agreed on, and how TLS brings them |
//! | `resumption`, `early_data` | tickets, and data before the handshake is complete |
//! | `verdict` | the application's word on the peer's certificate |
//! | `versions` | which version of QUIC is spoken |
//! | `deferred` | packets that come before their keys |
//! | `paths`, `migration` | the path to the peer, and its changes |
//! | `cids` | connection IDs of both sides |
//! | `timers`, `idle` | deadlines |
//! | `memory` | what is held, and the bound on it |
//! | `stats`, `telling` | what is counted, and what is told of it |
//! | `config`, `reconfigure` | settings, and their changes |
//! | `close` | how it ends |

mod ack_frequency;
pub mod cids;
pub mod close;
pub mod config;
mod content;
#[cfg(feature = "craft")]
#[doc(hidden)]
pub mod craft;
mod crypto_stream;
mod deferred;
pub mod drops;
mod early_data;
pub mod events;
mod handshake;
mod idle;
mod memory;
mod migration;
#[cfg(feature = "null-crypto")]
#[doc(hidden)]
pub mod null_crypto;
mod paths;
pub mod receive;
mod reconfigure;
pub mod resumption;
mod spaces;
pub mod stats;
mod telling;
#[cfg(test)]
mod tests;
mod timers;
mod tls;
pub mod transmit;
mod verdict;
mod versions;
mod waiting;

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringway_types::Instant;
use rustls::pki_types::ServerName;
use thin_vec::ThinVec;

use self::ack_frequency::AckFrequency;
pub use self::cids::LocalCid;
use self::cids::{LocalCids, RemoteCids, ResetTokenChange};
use self::close::{CloseFrame, CloseReason, Closing, State};
use self::config::Config;
use self::content::{Content, FrameToken};
use self::deferred::DeferredPacket;
use self::events::Event;
pub use self::handshake::FirstPacket;
use self::handshake::Handshake;
use self::idle::Idle;
pub use self::paths::PathAddress;
use self::paths::{Blocked, Path, PathResponses, PreviousPath};
use self::spaces::PacketSpaces;
use self::stats::Counters;
use crate::base::blocked::BlockedTimes;
use crate::crypto::keys::Keys;
use crate::crypto::suite::TAG_LEN;
use crate::crypto::tickets::ClientTicket;
use crate::crypto::tls::ClientTls;
use crate::datagrams::{DatagramData, DatagramOptions, DatagramSendState, SendQueue};
use crate::recovery::rtt::RttEstimator;
use crate::recovery::{Recovery, Sink};
use crate::streams::{StreamId, Streams};
use crate::wire::cid::{ConnectionId, ResetToken};
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::frame::datagram_len;
use crate::wire::header::{self, short_header_len};
use crate::wire::{Side, Space, Version};

/// One QUIC connection.
pub struct Connection {
    side: Side,
    version: Version,
    config: Arc<Config>,
    state: State,
    started: Instant,
    handshake: Handshake,
    content: Content,
    recovery: Recovery<FrameToken>,
    path: Path,
    /// The last path that was validated, while another one is being validated.
    previous_path: Option<Box<PreviousPath>>,
    /// PATH_RESPONSE frames to send, by address.
    path_responses: ThinVec<PathResponses>,
    deferred_packets: ThinVec<DeferredPacket>,
    idle: Idle,
    /// Packets that probe timeouts ask for, by space.
    probes: [u8; 3],
    /// What kept data back at the last attempt to send.
    blocked: Blocked,
    /// How long what has kept data back.
    blocked_times: BlockedTimes<5>,
    /// When the next key update may begin.
    next_key_update: Instant,
    /// The application has asked for a key update.
    update_keys_wanted: bool,
    last_data_sent: Instant,
    peer_acknowledged_close: bool,
    /// Seed of the next random numbers.
    seed: [u8; 32],
}

/// What a client's first Initial says about the connection that it opens.
#[derive(Clone, Debug)]
pub struct ServerStart {
    /// Version of the packet.
    pub version: Version,
    /// The client's connection ID (its Source Connection ID).
    pub peer_cid: ConnectionId,
    /// The Destination Connection ID of the client's very first packet.
    pub original_dcid: ConnectionId,
    /// The Destination Connection ID of this packet: Initial keys follow from it.
    pub initial_dcid: ConnectionId,
    /// The connection ID that we chose in a Retry, if we sent one.
    pub retry_scid: Option<ConnectionId>,
    /// The client's address is validated.
    pub address_validated: bool,
    /// Where the packet came from.
    pub path: PathAddress,
    /// Our connection ID.
    pub local_cid: LocalCid,
}

/// A seed for a connection's random numbers.
pub fn seed(rng: &mut impl Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

/// The connection ID to which a client sends its first packets (RFC 9000 section 7.2): unpredictable, and of 8 bytes at least.
fn initial_dcid(rng: &mut impl Rng) -> ConnectionId {
    let mut dcid = [0; 8];
    rng.fill_bytes(&mut dcid);
    ConnectionId::new(&dcid).expect("8 bytes are within the limit of 20")
}

impl Connection {
    /// A connection that we open. `token` is from a NEW_TOKEN frame of the server on an earlier connection, or empty; `ticket`, to resume a session,
    /// is one that `tls` has received there.
    #[allow(clippy::too_many_arguments, reason = "all that a connection begins with")]
    pub fn client(
        now: Instant,
        config: Arc<Config>,
        tls: &ClientTls,
        server_name: ServerName<'static>,
        path: PathAddress,
        local_cid: LocalCid,
        token: Vec<u8>,
        ticket: Option<ClientTicket>,
        seed: [u8; 32],
    ) -> Self {
        let mut connection = Connection::of_client(now, config.version, config, path, local_cid, seed);
        connection.path.validated = true;
        connection.handshake.token = token.into();
        connection.prepare_restart(tls, &server_name);
        connection.begin_client(now, tls, server_name, ticket);
        connection
    }

    /// A connection of ours that has ended before anything could be sent: only its events and its streams' are left.
    pub fn stillborn(
        now: Instant,
        path: PathAddress,
        local_cid: LocalCid,
        seed: [u8; 32],
        reason: CloseReason,
    ) -> Self {
        let config = Arc::clone(&BEFORE_ACCEPT);
        let mut connection = Connection::of_client(now, Version::V1, config, path, local_cid, seed);
        connection.end_silently(reason);
        connection
    }

    fn of_client(
        now: Instant,
        version: Version,
        config: Arc<Config>,
        path: PathAddress,
        local_cid: LocalCid,
        seed: [u8; 32],
    ) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let dcid = initial_dcid(&mut rng);
        Connection::new(
            now,
            Side::Client,
            version,
            config,
            path,
            dcid,
            dcid,
            local_cid,
            rng,
        )
    }

    /// A connection that a client opens. Pass the client's first datagram to [`Connection::receive`]; the handshake goes on with
    /// [`Connection::accept`].
    pub fn server(now: Instant, start: &ServerStart, seed: [u8; 32]) -> Self {
        let rng = StdRng::from_seed(seed);
        let config = Arc::clone(&BEFORE_ACCEPT);
        let mut connection = Connection::new(
            now,
            Side::Server,
            start.version,
            config,
            start.path,
            start.peer_cid,
            start.initial_dcid,
            start.local_cid,
            rng,
        );
        connection.path.validated = start.address_validated;
        connection.handshake.original_dcid = start.original_dcid;
        connection.handshake.retry_scid = start.retry_scid;
        connection
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "private: what both sides' constructors share"
    )]
    fn new(
        now: Instant,
        side: Side,
        version: Version,
        config: Arc<Config>,
        path: PathAddress,
        remote_cid: ConnectionId,
        initial_dcid: ConnectionId,
        local_cid: LocalCid,
        mut rng: StdRng,
    ) -> Self {
        let skip_seed = rng.next_u64();
        let seed = seed(&mut rng);
        Connection {
            side,
            version,
            state: State::Open,
            started: now,
            handshake: Handshake::new(version, initial_dcid, Keys::initial(version, &initial_dcid, side)),
            content: Content {
                ack_frequency: AckFrequency::default(),
                spaces: PacketSpaces::new(config.max_ack_delay),
                streams: Streams::new(side, config.streams),
                datagrams: SendQueue::default(),
                local_cids: LocalCids::new(local_cid),
                remote_cids: RemoteCids::new(remote_cid, path.remote),
                handshake_done: false,
                new_token: Box::default(),
                new_token_pending: false,
                events: VecDeque::new(),
                stats: Counters::default(),
                tokens: Vec::new(),
            },
            recovery: Recovery::new(side, config.initial_rtt, skip_seed),
            path: Path::new(now, path, &config, false),
            previous_path: None,
            path_responses: ThinVec::new(),
            deferred_packets: ThinVec::new(),
            idle: Idle::new(now),
            probes: [0; 3],
            blocked: Blocked::No,
            blocked_times: BlockedTimes::new(),
            next_key_update: Instant::ZERO,
            update_keys_wanted: false,
            last_data_sent: now,
            peer_acknowledged_close: false,
            config,
            seed,
        }
    }

    /// A generator of unpredictable numbers, another one each time. It is made when it is needed, which is rarely: kept, it would take as much
    /// memory as a congestion controller.
    fn random(&mut self) -> StdRng {
        let mut rng = StdRng::from_seed(self.seed);
        self.seed = seed(&mut rng);
        rng
    }

    /// The streams.
    #[inline]
    pub fn streams_mut(&mut self) -> &mut Streams {
        &mut self.content.streams
    }

    /// The peer has opened the stream with this ID.
    pub fn is_peer_initiated(&self, stream: u64) -> bool {
        StreamId::from_value(stream).initiator() != self.side
    }

    /// The next event of the connection.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        self.content.events.pop_front()
    }

    /// True if [`Connection::next_event`] has something.
    #[inline]
    pub fn has_own_events(&self) -> bool {
        !self.content.events.is_empty()
    }

    /// True if there are events of the connection or of its streams.
    #[inline]
    pub fn has_events(&self) -> bool {
        self.has_own_events() || self.content.streams.has_events()
    }

    /// The handshake is complete.
    pub fn is_established(&self) -> bool {
        self.handshake.complete
    }

    /// A packet of the peer was decrypted.
    pub fn has_received(&self) -> bool {
        self.handshake.received
    }

    /// The peer is known to receive packets at its address (RFC 9000 section 8).
    #[inline]
    pub fn is_address_validated(&self) -> bool {
        self.path.validated
    }

    /// Neither closing nor closed.
    #[inline]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The connection is over and its state may be dropped.
    #[inline]
    pub fn is_drained(&self) -> bool {
        matches!(self.state, State::Drained)
    }

    /// Frees memory that only another packet would need: to be called when the packets of a turn are done. It does so while few packets have
    /// been seen, since many connections are idle after their handshake, or end soon.
    #[inline]
    pub fn shrink_to_fit(&mut self) {
        if let Some(keys) = &mut self.handshake.one_rtt
            && keys.are_new()
        {
            keys.drop_expanded();
            self.content.shrink_to_fit();
            self.recovery.shrink_to_fit();
        }
    }

    /// Where the peer is, and where we are.
    pub fn path(&self) -> PathAddress {
        self.path.address
    }

    /// The Destination Connection ID of the client's very first packet.
    pub fn original_destination_cid(&self) -> ConnectionId {
        self.handshake.original_dcid
    }

    /// The version of the client's first flight, from which negotiation may have led to another one (RFC 9368).
    pub fn original_version(&self) -> Version {
        self.handshake.original_version
    }

    /// The version in use: that of the client's first flight, until the handshake has negotiated another.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The peer has closed the connection, or answered our close.
    pub fn peer_acknowledged_close(&self) -> bool {
        self.peer_acknowledged_close
    }

    /// Starts a key update as soon as RFC 9001 section 6.1 allows one.
    pub fn update_keys(&mut self) {
        self.update_keys_wanted = true;
    }

    /// The most bytes that fit in a DATAGRAM frame now; 0 if the peer takes none.
    pub fn max_datagram_len(&self) -> usize {
        let peer = self.handshake.peer.max_datagram_frame_size;
        if !self.handshake.can_send(Space::Data) || peer == 0 {
            return 0;
        }
        let remote = self.content.remote_cids.current();
        let header = match self.handshake.one_rtt {
            Some(_) => short_header_len(remote.len(), 4),
            None => header::long_header_len(remote, &self.content.local_cids.first().cid, None, 4),
        };
        let room = usize::from(self.path.mtu.current()) - header - TAG_LEN;
        let frame = room.min(peer.min(u64::from(u16::MAX)) as usize);
        frame.saturating_sub(datagram_len(frame) - frame)
    }

    /// The longest datagram that the caller should give: [`Connection::max_datagram_len`], or, as long as none can be sent or it is not known what
    /// the peer takes, what may turn out to fit.
    pub fn datagram_len_limit(&self) -> usize {
        let peer = &self.handshake.peer;
        // What a client remembers of its server says only that it takes some: one that took none may take them now.
        let is_known = peer.known || peer.max_datagram_frame_size > 0;
        if self.handshake.complete || (is_known && self.handshake.can_send(Space::Data)) {
            self.max_datagram_len()
        } else {
            usize::from(self.config.maximum_datagram_size)
        }
    }

    /// Queues a datagram; false if too many wait. The caller has compared its length with [`Connection::datagram_len_limit`]. Before the handshake
    /// is complete it waits, and is canceled if it turns out not to fit, unless it may go in 0-RTT.
    pub fn send_datagram(&mut self, data: DatagramData, context: u64, options: DatagramOptions) -> bool {
        // What the server took last time says what it takes in 0-RTT.
        let may_be_early = options.may_be_early && self.handshake.peer.max_datagram_frame_size > 0;
        let options = DatagramOptions {
            may_be_early,
            ..options
        };
        self.content.datagrams.push(data, context, options)
    }

    /// Cancels the datagrams that are not to wait.
    #[cold]
    fn cancel_impatient_datagrams(&mut self) {
        let Content {
            datagrams,
            events,
            stats,
            ..
        } = &mut self.content;
        datagrams.remove_impatient(|context| cancel_datagram(events, stats, context));
    }

    /// Reports that a datagram will not be sent.
    pub fn cancel_datagram(&mut self, context: u64) {
        cancel_datagram(&mut self.content.events, &mut self.content.stats, context);
    }

    /// Counts a datagram that was refused, of which nothing is reported.
    pub fn count_refused_datagram(&mut self) {
        self.content.stats.unsent_datagram_frames += 1;
    }

    fn update_datagram_state(&mut self) {
        let complete = self.handshake.complete;
        // A server that has accepted 0-RTT may send before, and knows what the client takes.
        let is_early = self.side == Side::Server && self.handshake.can_send(Space::Data);
        if !complete && !is_early {
            return;
        }
        // A server may take none although it did when 0-RTT was sent.
        let is_taken = self.handshake.peer.max_datagram_frame_size > 0;
        let max_send_len = self.max_datagram_len();
        // What waits and no longer fits never will.
        let Content {
            datagrams,
            events,
            stats,
            ..
        } = &mut self.content;
        let cancel = |context| cancel_datagram(events, stats, context);
        if is_taken {
            datagrams.remove_longer(max_send_len, cancel);
        } else {
            datagrams.remove(|_| true, cancel);
        }
        if !is_taken || !complete {
            return;
        }
        self.content.events.push_back(Event::DatagramStateChanged {
            send_enabled: true,
            max_send_len,
        });
    }

    /// Sends a client a token for its next connection (RFC 9000 section 8.1.3).
    pub fn send_new_token(&mut self, token: Vec<u8>) {
        if self.side == Side::Server && self.is_open() {
            self.content.new_token = token.into();
            self.content.new_token_pending = true;
        }
    }
}

/// Connection IDs, for the caller's tables.
impl Connection {
    /// One of the calls below has something to return or to ask for.
    #[inline]
    pub fn has_cid_changes(&self) -> bool {
        // A connection that has ended gives its peer no more of them.
        (self.handshake.complete && self.content.local_cids.has_changes(self.is_open()))
            || self.content.remote_cids.has_changes()
    }

    /// How many more connection IDs the peer should be given, by [`Connection::add_local_cid`].
    pub fn local_cids_wanted(&self) -> usize {
        if self.handshake.complete && self.is_open() {
            self.content.local_cids.wanted()
        } else {
            0
        }
    }

    /// Issues a connection ID to the peer.
    pub fn add_local_cid(&mut self, cid: LocalCid) {
        self.content.local_cids.add(cid);
    }

    /// Has the peer retire the connection IDs that it has: [`Connection::local_cids_wanted`] says how many new ones it needs.
    pub fn replace_local_cids(&mut self) {
        self.content.local_cids.replace_all();
    }

    /// The caller may move it to another partition: the peer has the connection IDs of this one, and no others.
    pub fn can_change_partition(&self) -> bool {
        let follows = self.handshake.confirmed && self.content.local_cids.being_replaced() == 0;
        self.config.follow_rss && self.is_open() && follows
    }

    /// Packets received so far.
    #[inline]
    pub fn received_packets(&self) -> u64 {
        self.content.stats.received_packets
    }

    /// The peer's stateless reset token in use, and the peer's address.
    pub fn reset_token(&self) -> Option<(std::net::SocketAddr, ResetToken)> {
        self.content.remote_cids.reset_token()
    }

    /// The next connection ID of ours that the peer has retired.
    pub fn next_retired_local_cid(&mut self) -> Option<ConnectionId> {
        self.content.local_cids.next_retired()
    }

    /// Our connection IDs that the peer may use.
    pub fn local_cids(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.content.local_cids.all()
    }

    /// The next change of the peer's stateless reset tokens.
    pub fn next_reset_token_change(&mut self) -> Option<ResetTokenChange> {
        self.content.remote_cids.next_change()
    }

    /// Removes all stateless reset tokens, as changes, since the connection has ended.
    pub fn retire_reset_tokens(&mut self) {
        self.content.remote_cids.forget_tokens();
    }
}

/// The end.
impl Connection {
    /// The application ends the connection with its error code.
    pub fn close(&mut self, now: Instant, code: u64) {
        self.close_with(now, code, String::new());
    }

    /// The same with words for people.
    pub fn close_with(&mut self, now: Instant, code: u64, reason: String) {
        let frame = CloseFrame::application(code, reason.clone());
        self.begin_closing(now, frame, CloseReason::LocalApplication { code, reason });
    }

    /// Refuses a connection that was not accepted.
    pub fn refuse(&mut self, now: Instant, error: TransportError) {
        self.fail(now, error);
    }

    /// Ends the connection at once: nothing more is sent, not even CONNECTION_CLOSE.
    pub fn abandon(&mut self, reason: CloseReason) {
        self.end_silently(reason);
        self.state = State::Drained;
    }

    /// The system has no way to the peer. A client that has not heard of its server ends; any other goes on: the way may come back.
    pub fn on_unreachable(&mut self, error: String) {
        if self.side == Side::Client && self.is_open() && !self.has_received() {
            self.abandon(CloseReason::Unreachable { error });
        }
    }

    /// Something panicked, as `reason` says: closes with INTERNAL_ERROR.
    pub fn close_for_panic(&mut self, now: Instant, reason: &'static str) {
        self.fail(
            now,
            TransportError::new(TransportErrorCode::INTERNAL_ERROR, reason),
        );
    }

    /// A stateless reset of the connection has arrived (RFC 9000 section 10.3).
    pub fn on_stateless_reset(&mut self, now: Instant) {
        if self.is_open() {
            self.announce_end(CloseReason::StatelessReset);
            // Nothing may be sent; what still arrives for a while is ours.
            self.state = State::Draining {
                until: now + self.closing_period(now),
                answer: false,
            };
        }
    }

    #[inline]
    fn check(&mut self, now: Instant, result: Result<(), TransportError>) {
        if let Err(error) = result {
            self.fail(now, error);
        }
    }

    fn fail(&mut self, now: Instant, error: TransportError) {
        tracing::debug!(%error, side = ?self.side, "connection error");
        let rejected = self
            .handshake
            .tls
            .as_mut()
            .and_then(|tls| tls.take_ech_rejected());
        self.content.stats.protocol_error |= error.code.is_protocol_error();
        let frame = CloseFrame::transport(&error);
        let reason = match rejected {
            Some(rejected) => CloseReason::EchRejected(rejected),
            None => CloseReason::Transport(error),
        };
        self.begin_closing(now, frame, reason);
    }

    /// The handshake has taken too long: the peer is told once.
    fn end_late_handshake(&mut self, now: Instant) {
        let code = match self.side {
            Side::Client => TransportErrorCode::NO_ERROR,
            Side::Server => TransportErrorCode::CONNECTION_REFUSED,
        };
        let error = TransportError::new(code, "the handshake takes too long");
        self.begin_closing(now, CloseFrame::transport(&error), CloseReason::HandshakeTimeout);
        if let State::Closing(closing) = &mut self.state {
            // Whoever began it may be an attacker: nothing is kept for him.
            closing.until = now;
        }
    }

    fn begin_closing(&mut self, now: Instant, frame: CloseFrame, reason: CloseReason) {
        if !self.is_open() {
            return;
        }
        self.announce_end(reason);
        // Keys of 1-RTT alone do until the handshake is confirmed.
        if !self.handshake.received && self.side == Side::Server {
            self.state = State::Drained;
            return;
        }
        let until = now + self.closing_period(now);
        self.state = State::Closing(Closing {
            until,
            frame,
            pending: true,
            received: 0,
        });
    }

    fn on_connection_close(
        &mut self,
        now: Instant,
        application: bool,
        code: u64,
        frame_type: u64,
        reason: &[u8],
    ) {
        self.peer_acknowledged_close = true;
        match &self.state {
            State::Open => {}
            // It answers ours: both sides know.
            State::Closing(_) => {
                self.state = State::Drained;
                return;
            }
            State::Draining { .. } | State::Drained => return,
        }
        let reason = String::from_utf8_lossy(reason).into_owned();
        self.announce_end(if application {
            CloseReason::PeerApplication { code, reason }
        } else {
            CloseReason::PeerTransport {
                code: TransportErrorCode(code),
                frame_type,
                reason,
            }
        });
        self.state = State::Draining {
            until: now + self.closing_period(now),
            answer: true,
        };
    }

    /// Ends without CONNECTION_CLOSE.
    fn end_silently(&mut self, reason: CloseReason) {
        if self.is_open() {
            self.announce_end(reason);
            self.state = State::Drained;
        }
    }

    /// Reports that the end begins, and ends all streams.
    fn announce_end(&mut self, reason: CloseReason) {
        self.content.events.push_back(Event::Closing(reason));
        self.content.streams.close_all();
        while let Some(waiting) = self.content.datagrams.pop() {
            self.cancel_datagram(waiting.context);
        }
        if self.content.datagrams.is_used() {
            // Nobody will hear of an acknowledgement.
            let content = &mut self.content;
            self.recovery
                .unsettled_tokens(Space::Data, |token| content.on_forgotten(Space::Data, token));
        }
        self.deferred_packets.clear();
        self.path_responses.clear();
    }

    /// RFC 9000 section 10.2: three probe timeouts, by the best estimate that there is.
    fn closing_period(&self, now: Instant) -> Duration {
        let rtt = self.recovery.rtt();
        if rtt.first_sample().is_none() && self.side.is_client() && self.handshake.received {
            // Our first packet was answered within the connection's age, if only without an acknowledgement.
            let age = now.since(self.started).min(rtt.smoothed());
            return RttEstimator::of(now, age).pto() * 3;
        }
        self.recovery.pto(Space::Data) * 3
    }
}

fn cancel_datagram(events: &mut VecDeque<Event>, stats: &mut Counters, context: u64) {
    stats.unsent_datagram_frames += 1;
    let state = DatagramSendState::Canceled;
    events.push_back(Event::DatagramSendStateChanged { context, state });
}

/// Until a client's connection is accepted nothing but acknowledgements is sent, and the application's settings are not known.
static BEFORE_ACCEPT: LazyLock<Arc<Config>> = LazyLock::new(Arc::default);
