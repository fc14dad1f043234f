//! Datagrams (RFC 9221).

use bytes::Bytes;
use ringway_engine::datagrams::{DatagramData, DatagramOptions};

use super::error::CallError;
use super::flags::SendFlags;
use crate::worker::calls::CallOutcome;
use crate::worker::current;
use crate::worker::handles::Connection;
use crate::worker::hosted_connection::HostedConnection;

impl Connection {
    /// Sends a DATAGRAM frame (RFC 9221). MsQuic: `DatagramSend`.
    ///
    /// After `Ok`, [`DatagramSendStateChanged`](crate::ConnectionEvent::DatagramSendStateChanged) events with this `context` report its state, of
    /// which
    /// exactly one is [final](crate::DatagramSendState::is_final). `data` is not copied before it goes into a packet: it is held until then.
    ///
    /// Before the handshake is complete, nothing is known of what the peer takes: up to 4096 datagrams wait for it, each as long as
    /// [`Settings::maximum_datagram_size`](crate::Settings::maximum_datagram_size) at most, and those that turn out not to fit are canceled.
    /// [`ConnectionStats::unsent_datagram_frames`](crate::ConnectionStats::unsent_datagram_frames) counts what is never sent.
    ///
    /// # Errors
    ///
    /// [`CallError::DatagramTooLarge`]: it does not fit one packet, or the peer takes none. [`CallError::QueueFull`]: 4096 wait already; another
    /// thread is not told so, and the datagram is reported as canceled. [`CallError::Closed`]: the connection has ended,
    /// or begins to; another thread that is not told so yet hears that the datagram is canceled.
    pub fn send_datagram(&self, data: Bytes, context: u64) -> Result<(), CallError> {
        self.send_datagram_with(data, context, SendFlags::NONE)
    }

    /// The same with flags: [`SendFlags::ALLOW_0_RTT`], [`SendFlags::DATAGRAM_PRIORITY`], [`SendFlags::CANCEL_ON_BLOCKED`],
    /// [`SendFlags::PRIORITY_WORK`]. Others mean nothing here.
    ///
    /// # Errors
    ///
    /// As [`Connection::send_datagram`].
    pub fn send_datagram_with(&self, data: Bytes, context: u64, flags: SendFlags) -> Result<(), CallError> {
        self.queue_datagram(data.into(), context, flags)
    }

    /// The same with several buffers, which lie one behind the other in one datagram.
    ///
    /// # Errors
    ///
    /// As [`Connection::send_datagram`].
    pub fn send_datagram_vectored(
        &self,
        data: Vec<Bytes>,
        context: u64,
        flags: SendFlags,
    ) -> Result<(), CallError> {
        self.queue_datagram(DatagramData::Many(data.into()), context, flags)
    }

    fn queue_datagram(&self, data: DatagramData, context: u64, flags: SendFlags) -> Result<(), CallError> {
        let queued = self.try_queue_datagram(data, context, flags);
        if queued.is_err() {
            // In its handlers: elsewhere there is no connection to count it, or nobody that would ask.
            let _ = current::with(&self.0, |hosted, _| hosted.count_refused_datagram());
        }
        queued
    }

    fn try_queue_datagram(
        &self,
        data: DatagramData,
        context: u64,
        flags: SendFlags,
    ) -> Result<(), CallError> {
        let options = DatagramOptions {
            may_be_early: flags.contains(SendFlags::ALLOW_0_RTT),
            priority: flags.contains(SendFlags::DATAGRAM_PRIORITY),
            cancel_on_blocked: flags.contains(SendFlags::CANCEL_ON_BLOCKED),
        };
        let (len, max) = (data.len(), self.0.known.datagram_max());
        if len > max && !self.0.gate().is_closed() {
            return Err(CallError::DatagramTooLarge { max });
        }
        let send = move |hosted: &mut HostedConnection, _| {
            let max = hosted.datagram_len_limit();
            if !hosted.is_open() {
                Err(CallError::Closed)
            } else if len > max {
                Err(CallError::DatagramTooLarge { max })
            } else if !hosted.send_datagram(data, context, options) {
                Err(CallError::QueueFull)
            } else {
                Ok(())
            }
        };
        let then = move |result: Result<(), CallError>, hosted: &mut HostedConnection| {
            if result.is_err() {
                hosted.cancel_datagram(context);
            }
        };
        let priority = flags.contains(SendFlags::PRIORITY_WORK);
        let called = self.0.call_then(send, then, priority);
        match called {
            CallOutcome::Completed(result) => result,
            CallOutcome::Queued => Ok(()),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }
}
