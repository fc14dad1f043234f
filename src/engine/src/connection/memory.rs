//! What a connection holds, and the bound on it.

use super::Connection;
use super::events::Event;
use super::resumption::AfterHandshake;
use crate::crypto::tls::TlsSession;

impl Connection {
    /// Bytes of memory that the connection holds, or a little more, in the time that it takes to add up some thirty numbers: a caller with many
    /// connections can ask after each datagram, and act before all together hold too much ([`Connection::freeze_windows`]).
    ///
    /// However a peer cuts, repeats, reorders and holds back what it sends, this is never more than the sum of
    ///
    /// - 4 × the bytes of the datagrams that came from it,
    /// - 64 KB,
    /// - 1 KB for each stream that is open.
    ///
    /// It counts what a connection always has (itself, keys, connection IDs, and TLS during the handshake: an estimate), stream and handshake data
    /// that came out of order or was not consumed, with gaps and room in reserve, packets that came before their keys, what there is to
    /// acknowledge, events that wait, and streams: some 460 bytes each. A stream is open until [`Streams::release`]. Those that the peer opens
    /// by naming a higher one (RFC 9000 section 3.2) take nothing: ranges of them lie between those that it named, which take 32 bytes.
    ///
    /// What is sent comes on top: the data itself is the application's and does not count; some 50 bytes for each packet under way do, and the
    /// congestion window bounds them. [`ReadyData`] is the caller's as long as it has it.
    ///
    /// [`Streams::release`]: crate::streams::Streams::release
    /// [`ReadyData`]: crate::streams::ReadyData
    pub fn memory(&self) -> usize {
        let Connection {
            handshake,
            content,
            recovery,
            path_responses,
            deferred_packets,
            ..
        } = self;
        let tls = if handshake.tls.is_some() {
            TLS + size_of::<TlsSession>()
        } else {
            0
        };
        let after = match handshake.after.as_deref() {
            Some(AfterHandshake::Issuer(issuer)) => size_of::<AfterHandshake>() + issuer.memory(),
            Some(AfterHandshake::Receiver { .. }) => {
                size_of::<AfterHandshake>() + size_of::<TlsSession>() + TLS
            }
            None => 0,
        };
        let early = handshake.early.as_ref().map_or(0, |_| EARLY);
        let deferred: usize = deferred_packets
            .iter()
            .map(|deferred| deferred.packet.len())
            .sum();
        FIXED
            + tls
            + after
            + early
            + handshake.hello.capacity()
            + handshake.token.len()
            + content.new_token.len()
            + content.spaces.memory()
            + content.streams.memory()
            + content.events.capacity() * size_of::<Event>()
            + recovery.memory()
            + path_responses.capacity() * size_of::<super::PathResponses>()
            + deferred
            + deferred_packets.capacity() * size_of::<super::DeferredPacket>()
    }

    /// While set, flow control windows of streams do not grow with their use: for a caller that holds much for all connections together. What the
    /// peer was allowed it may still send.
    pub fn freeze_windows(&mut self, frozen: bool) {
        self.content.streams.freeze_windows(frozen);
    }
}

/// What each connection has: itself, and beside it keys, connection IDs, the path before the present one, and the small lists of all of them.
const FIXED: usize = size_of::<Connection>() + 2048;
/// What a TLS session takes beside itself while the handshake lasts.
const TLS: usize = 4096;
/// What 0-RTT takes while there may be some.
const EARLY: usize = 1024;
