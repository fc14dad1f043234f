//! Events of streams.

use super::id::{Dir, StreamId, StreamKey};

/// Events of streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamEvent {
    /// The peer has opened a stream. Comes before anything else about the stream.
    PeerOpened {
        /// The stream.
        key: StreamKey,
        /// Its ID.
        id: StreamId,
    },
    /// A stream of ours has its ID.
    Started {
        /// The stream.
        key: StreamKey,
        /// Its ID.
        id: StreamId,
    },
    /// The peer allows a stream that was started with [`StartOptions::tell_accepted`](super::StartOptions::tell_accepted).
    PeerAccepted {
        /// The stream.
        key: StreamKey,
    },
    /// Data of a stream that is of no use after a loss was lost. [`Streams::abort`](super::Streams::abort) should follow.
    CancelOnLoss {
        /// The stream.
        key: StreamKey,
    },
    /// A stream of ours could not be started.
    StartFailed {
        /// The stream.
        key: StreamKey,
        /// The limit was reached; otherwise the stream or the connection has ended.
        blocked: bool,
    },
    /// The data of one send is acknowledged, or given up.
    SendComplete {
        /// The stream.
        key: StreamKey,
        /// What the send was given.
        context: u64,
        /// Given up.
        canceled: bool,
    },
    /// All data of the peer was consumed.
    PeerSendShutdown {
        /// The stream.
        key: StreamKey,
    },
    /// The peer has reset its half.
    PeerSendAborted {
        /// The stream.
        key: StreamKey,
        /// Application error code.
        code: u64,
    },
    /// The peer wants no more data; our half was reset.
    PeerReceiveAborted {
        /// The stream.
        key: StreamKey,
        /// Application error code.
        code: u64,
    },
    /// So many bytes should be kept queued on each stream from now on.
    IdealSendBufferSize {
        /// The stream.
        key: StreamKey,
        /// Bytes.
        bytes: u64,
    },
    /// Our half has ended.
    SendShutdownComplete {
        /// The stream.
        key: StreamKey,
        /// Everything was acknowledged.
        graceful: bool,
    },
    /// Both halves have ended: the last event of the stream. Its key stays valid until [`Streams::release`](super::Streams::release).
    ShutdownComplete {
        /// The stream.
        key: StreamKey,
    },
    /// The peer allows more streams: this many can be opened now.
    StreamsAvailable {
        /// Bidirectional.
        bidi: u64,
        /// Unidirectional.
        uni: u64,
    },
    /// The peer would open more streams if it might.
    PeerNeedsStreams {
        /// Of this direction.
        dir: Dir,
    },
}

impl StreamEvent {
    /// The stream that it is about.
    pub(super) fn key(&self) -> Option<StreamKey> {
        match *self {
            StreamEvent::PeerOpened { key, .. }
            | StreamEvent::Started { key, .. }
            | StreamEvent::PeerAccepted { key }
            | StreamEvent::CancelOnLoss { key }
            | StreamEvent::StartFailed { key, .. }
            | StreamEvent::SendComplete { key, .. }
            | StreamEvent::PeerSendShutdown { key }
            | StreamEvent::PeerSendAborted { key, .. }
            | StreamEvent::PeerReceiveAborted { key, .. }
            | StreamEvent::IdealSendBufferSize { key, .. }
            | StreamEvent::SendShutdownComplete { key, .. }
            | StreamEvent::ShutdownComplete { key } => Some(key),
            StreamEvent::StreamsAvailable { .. } | StreamEvent::PeerNeedsStreams { .. } => None,
        }
    }
}
