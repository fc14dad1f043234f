//! Where tquic's datagrams go out.

use std::cell::RefCell;

use anyhow::{Error, Result};
use ringway_peers_sans_io::Sender;
use tquic::{PacketInfo, PacketSendHandler};

/// Takes datagrams from tquic, which does not want to hear of those that the kernel does not take: they are lost, like any packet.
pub struct Output {
    sender: RefCell<Sender>,
    error: RefCell<Option<Error>>,
}

impl Output {
    pub fn new(sender: Sender) -> Self {
        Output {
            sender: RefCell::new(sender),
            error: RefCell::new(None),
        }
    }

    /// Sends what is gathered. Fails with the first error since the last call.
    pub fn flush(&self) -> Result<()> {
        let flushed = self.sender.borrow_mut().flush();
        self.error.take().map_or(flushed, Err)
    }
}

impl PacketSendHandler for Output {
    fn on_packets_send(&self, packets: &[(Vec<u8>, PacketInfo)]) -> tquic::Result<usize> {
        let mut sender = self.sender.borrow_mut();
        for (datagram, info) in packets {
            if let Err(error) = sender.send(datagram, info.dst) {
                self.error.borrow_mut().get_or_insert(error);
            }
        }
        Ok(packets.len())
    }
}
