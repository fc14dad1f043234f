//! How a call on a handle runs: at once inside a handler of its connection, and through the worker's inbox anywhere
//! else.

use std::sync::Arc;

use ringway_engine::streams::SendError;
use ringway_types::Instant;

use super::current;
use super::handles::{ConnectionShared, StreamShared};
use super::hosted_connection::HostedConnection;

/// What a call means for its worker.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weight {
    /// Bytes to send that it brings.
    pub bytes: usize,
    /// It goes before the calls of other connections.
    pub priority: bool,
}

/// The outcome of a call.
pub(crate) enum CallOutcome<R> {
    /// It ran at once, inside an event handler of the connection.
    Completed(R),
    /// It is queued for the worker.
    Queued,
    /// The connection or the stream has ended.
    Closed,
}

impl ConnectionShared {
    /// Runs `operation` on the connection: at once if the calling thread is inside one of its event handlers, otherwise
    /// when its worker gets to it. Operations of one thread run in the order of the calls.
    pub(crate) fn call<R>(
        self: &Arc<Self>,
        operation: impl FnOnce(&mut HostedConnection, Instant) -> R + Send + 'static,
    ) -> CallOutcome<R> {
        self.call_then(operation, |_, _| (), false)
    }

    /// Like [`ConnectionShared::call`]. If the operation is queued, `then` sees the result that the caller does not, and with `priority` the
    /// connection's calls go before those of others.
    pub(crate) fn call_then<R>(
        self: &Arc<Self>,
        operation: impl FnOnce(&mut HostedConnection, Instant) -> R + Send + 'static,
        then: impl FnOnce(R, &mut HostedConnection) + Send + 'static,
        priority: bool,
    ) -> CallOutcome<R> {
        if self.gate().is_closed() {
            return CallOutcome::Closed;
        }
        match current::with(self, operation) {
            Ok(result) => CallOutcome::Completed(result),
            Err(operation) => self.call_later(operation, then, priority),
        }
    }

    /// Like [`ConnectionShared::call_then`], behind the calls that are queued wherever it is made.
    fn call_later<R, T>(
        self: &Arc<Self>,
        operation: impl FnOnce(&mut HostedConnection, Instant) -> R + Send + 'static,
        then: impl FnOnce(R, &mut HostedConnection) + Send + 'static,
        priority: bool,
    ) -> CallOutcome<T> {
        if !self.gate().enter() {
            return CallOutcome::Closed;
        }
        let run = Box::new(move |hosted: &mut HostedConnection, now| {
            let result = operation(hosted, now);
            then(result, hosted);
        });
        if !self.queue_call(run, priority) {
            self.gate().leave();
            return CallOutcome::Closed;
        }
        CallOutcome::Queued
    }

    /// The application has dropped its last handle. What other threads have called before comes first.
    #[cold]
    pub(super) fn end_unheld(self: &Arc<Self>) {
        let end = |hosted: &mut HostedConnection, now| {
            if hosted.shared().is_unheld() {
                hosted.shutdown(now, 0, String::new());
            }
        };
        // `Closed`: it has ended already.
        let _: CallOutcome<()> = match self.waiting_calls() {
            0 => self.call(end),
            _ => self.call_later(end, |(), _| (), false),
        };
    }
}

impl StreamShared {
    /// The application has dropped its last handle of a stream of the peer that has ended.
    #[cold]
    pub(super) fn give_credit(self: &Arc<Self>) {
        let stream = Arc::clone(self);
        let give = move |hosted: &mut HostedConnection, _| hosted.give_stream_credit(&stream);
        // `Closed`: nobody waits for it.
        let _ = self.connection.0.call(give);
    }

    /// The application has dropped its last handle. What other threads have called before comes first.
    #[cold]
    pub(super) fn end_unheld(self: &Arc<Self>) {
        let end = move |hosted: &mut HostedConnection, stream: &StreamShared, now| {
            let clock = hosted.flow_clock(now);
            if stream.is_unheld()
                && let Some((streams, key)) = hosted.stream(stream)
            {
                streams.leave(clock, key);
                stream.known.withdraw();
                stream.known.end_send();
            }
            Ok(())
        };
        let _ = match self.gate().is_quiet() {
            true => self.call_or(Weight::default(), end, |_, _| ()),
            false => self.queue_or(Weight::default(), end, |_, _| ()),
        };
    }

    /// Runs `operation` on the stream, at once or queued as [`ConnectionShared::call`] does. If it is queued and
    /// fails, `failed` runs, because the caller no longer sees the error.
    pub(crate) fn call_or<F>(
        self: &Arc<Self>,
        weight: Weight,
        operation: F,
        failed: impl FnOnce(&mut HostedConnection, &StreamShared) + Send + 'static,
    ) -> CallOutcome<Result<(), SendError>>
    where
        F: FnOnce(&mut HostedConnection, &StreamShared, Instant) -> Result<(), SendError> + Send + 'static,
    {
        let connection = &self.connection.0;
        if self.is_closed() {
            return CallOutcome::Closed;
        }
        // Most calls come from a handler of the connection, where the stream cannot end meanwhile. They need neither a
        // reference nor the gate, which would cost four atomic operations each.
        let mut operation = Some(operation);
        let inline = |hosted: &mut HostedConnection, now| {
            operation.take().map(|operation| operation(hosted, self, now))
        };
        if let Ok(Some(result)) = current::with(connection, inline) {
            return CallOutcome::Completed(result);
        }
        match operation {
            Some(operation) => self.queue_or(weight, operation, failed),
            None => CallOutcome::Closed,
        }
    }

    /// As [`StreamShared::call_or`], behind the calls that are queued wherever it is made.
    fn queue_or<F>(
        self: &Arc<Self>,
        weight: Weight,
        operation: F,
        failed: impl FnOnce(&mut HostedConnection, &StreamShared) + Send + 'static,
    ) -> CallOutcome<Result<(), SendError>>
    where
        F: FnOnce(&mut HostedConnection, &StreamShared, Instant) -> Result<(), SendError> + Send + 'static,
    {
        if !self.gate().enter() {
            return CallOutcome::Closed;
        }
        let connection = &self.connection.0;
        // Leaves the gate also if the call panics, or never runs.
        let bytes = weight.bytes as i64;
        let mut entered = Entered(Arc::clone(self), bytes);
        connection.known.begin_send(bytes);
        let queued = move |hosted: &mut HostedConnection, now| {
            entered.arrive();
            if operation(hosted, &entered.0, now).is_err() {
                failed(hosted, &entered.0);
            }
        };
        connection.call_later(queued, |(), _| (), weight.priority)
    }
}

/// A call of another thread on a stream, between the entry through its gate and the end, with bytes to send that the worker has not seen.
struct Entered(Arc<StreamShared>, i64);

impl Entered {
    fn arrive(&mut self) {
        let bytes = std::mem::take(&mut self.1);
        if bytes != 0 {
            self.0.connection.0.known.end_send(bytes);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.arrive();
        self.0.gate().leave();
    }
}
