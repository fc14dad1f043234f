//! Datagrams (RFC 9297), as the crate h3-datagram has them.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h3::quic::ConnectionErrorIncoming;
use h3_datagram::datagram::EncodedDatagram;
use h3_datagram::quic_traits::{
    DatagramConnectionExt, RecvDatagram, SendDatagram, SendDatagramErrorIncoming,
};
use ringway_async::{Connection as Transport, SendDatagramError, Waiter};

use crate::connection::Connection;
use crate::error;

impl<B: Buf> DatagramConnectionExt<B> for Connection {
    type SendDatagramHandler = SendDatagramHandler;
    type RecvDatagramHandler = RecvDatagramHandler;

    fn send_datagram_handler(&self) -> SendDatagramHandler {
        SendDatagramHandler(self.transport().clone())
    }

    fn recv_datagram_handler(&self) -> RecvDatagramHandler {
        RecvDatagramHandler {
            transport: self.transport().clone(),
            waiter: Waiter::default(),
        }
    }
}

/// Sends datagrams. Where more than 1,024 wait for their packets, further ones are dropped, as the network drops what is too much for it.
#[derive(Clone, Debug)]
pub struct SendDatagramHandler(Transport);

impl<B: Buf> SendDatagram<B> for SendDatagramHandler {
    fn send_datagram<T: Into<EncodedDatagram<B>>>(
        &mut self,
        data: T,
    ) -> Result<(), SendDatagramErrorIncoming> {
        let mut data: EncodedDatagram<B> = data.into();
        let data = data.copy_to_bytes(data.remaining());
        match self.0.send_datagram(data) {
            Ok(()) => Ok(()),
            Err(SendDatagramError::QueueFull) => {
                tracing::debug!("too many datagrams wait to be sent; one was dropped");
                Ok(())
            }
            Err(SendDatagramError::UnsupportedByPeer) => Err(SendDatagramErrorIncoming::NotAvailable),
            Err(SendDatagramError::ConnectionLost(error)) => Err(SendDatagramErrorIncoming::ConnectionError(
                error::connection(error),
            )),
            Err(_) => Err(SendDatagramErrorIncoming::TooLarge),
        }
    }
}

/// Receives datagrams: each goes to one of those who wait.
#[derive(Debug)]
pub struct RecvDatagramHandler {
    transport: Transport,
    waiter: Waiter,
}

impl RecvDatagram for RecvDatagramHandler {
    type Buffer = Bytes;

    fn poll_incoming_datagram(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, ConnectionErrorIncoming>> {
        self.transport
            .poll_read_datagram(cx, &mut self.waiter)
            .map_err(error::connection)
    }
}
