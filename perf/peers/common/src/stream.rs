//! What stacks with futures offer to the scenarios, and the server's half of each request.

use std::future::Future;

use anyhow::Result;
use bytes::Bytes;

use crate::{Pattern, Request, cannot};

/// Where connections of a client begin. Clones are the same endpoint, and the same socket where the stack allows it.
pub trait Endpoint: Clone + Send + Sync + 'static {
    type Connection: Connection;

    /// Connects, with a ticket if the run resumes sessions and there is one; the handshake is done when this is.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Connects with a ticket, if there is one, and as soon as streams can be opened in 0-RTT; if none can, when the handshake is done.
    fn connect_early(&self) -> impl Future<Output = Result<Self::Connection>> + Send {
        async { cannot("send a request in 0-RTT") }
    }

    /// Waits until a ticket has come for each time that this was called.
    fn ticket(&self) -> impl Future<Output = ()> + Send;

    /// Fails if a connection that had a ticket was set up by a full handshake.
    fn ensure_resumed(&self) -> Result<()>;

    /// Whether a request failed for this alone, that the server takes no 0-RTT: then it is to be made again on the same connection.
    fn is_rejection(_: &anyhow::Error) -> bool {
        false
    }

    /// Waits until servers have been told that their connections are closed.
    fn settle(self) -> impl Future<Output = ()> + Send;
}

/// A connection of a client. Clones are the same connection.
pub trait Connection: Clone + Send + Sync + 'static {
    type Stream: Stream;

    /// Opens a stream for one request.
    fn open(&self) -> impl Future<Output = Result<Self::Stream>> + Send;

    /// Starts a key update: of the connection, or of the stream, where each has keys of its own.
    fn update_keys(&self, _stream: &mut Self::Stream) -> Result<()> {
        cannot("start a key update")
    }

    /// Waits until it ends, and says why.
    fn ended(&self) -> impl Future<Output = anyhow::Error> + Send;

    fn close(self);
}

/// One request and its response, at either end.
pub trait Stream: Send + 'static {
    /// Gives `data` to the stack, and waits as long as that has enough to send.
    fn send(&mut self, data: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Nothing more is sent.
    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Waits for data, and shows it piece by piece; `false`: the other end has finished.
    fn receive(&mut self, see: impl FnMut(&[u8]) + Send) -> impl Future<Output = Result<bool>> + Send;

    /// Tells the other end that it gets no response.
    fn refuse(&mut self);
}

/// Reads a request and answers it.
pub async fn answer(stream: &mut impl Stream, pattern: &Pattern, verify: bool) -> Result<()> {
    let mut request = Request::default();
    let verify = verify.then_some(pattern);
    while stream.receive(|piece| request.take(piece, verify)).await? {}
    let Some(len) = request.response_len() else {
        stream.refuse();
        return Ok(());
    };
    let mut sent = 0;
    while sent < len {
        let piece = pattern.piece(sent, len - sent);
        sent += piece.len() as u64;
        stream.send(piece).await?;
    }
    stream.finish().await
}
