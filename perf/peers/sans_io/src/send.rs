//! Sending.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Result;
use quinn_udp::Transmit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{MAX_DATAGRAM, Socket};

/// UDP payload of the longest run.
const MAX_RUN: usize = 65_507;
/// How long the kernel may take to make room, before what goes out is lost as any packet may be.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The sending direction. Datagrams of one size to one address go out together; the last of them may be shorter.
pub struct Sender {
    pub(crate) socket: Rc<Socket>,
    run: Box<[u8]>,
    /// Bytes in the run.
    len: usize,
    /// What each datagram of the run has.
    segment: usize,
    datagrams: usize,
    to: SocketAddr,
}

impl Sender {
    pub(crate) fn new(socket: Rc<Socket>) -> Self {
        Sender {
            socket,
            run: vec![0; MAX_RUN + MAX_DATAGRAM].into(),
            len: 0,
            segment: 0,
            datagrams: 0,
            to: SocketAddr::from(([0; 4], 0)),
        }
    }

    /// Where the next datagram is to be written.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.run[self.len..self.len + MAX_DATAGRAM]
    }

    /// Sends what was written: `len` bytes. It goes out with others, at the latest when [`flush`](Self::flush) is called.
    pub fn commit(&mut self, len: usize, to: SocketAddr) -> Result<()> {
        let fits = self.datagrams == 0 || (to == self.to && len <= self.segment && self.len + len <= MAX_RUN);
        let mut result = Ok(());
        if !fits {
            let start = self.len;
            result = self.flush();
            self.run.copy_within(start..start + len, 0);
        }
        if self.datagrams == 0 {
            (self.segment, self.to) = (len, to);
        }
        self.len += len;
        self.datagrams += 1;
        let is_full =
            self.len + self.segment > MAX_RUN || self.datagrams >= self.socket.state.max_gso_segments();
        if len < self.segment || is_full {
            result = result.and(self.flush());
        }
        result
    }

    /// Sends a copy.
    pub fn send(&mut self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        self.room()[..datagram.len()].copy_from_slice(datagram);
        self.commit(datagram.len(), to)
    }

    /// Sends what is gathered.
    pub fn flush(&mut self) -> Result<()> {
        if self.datagrams == 0 {
            return Ok(());
        }
        let run = &self.run[..self.len];
        (self.len, self.datagrams) = (0, 0);
        match self.transmit(run) {
            // The device cannot cut runs: from now on each datagram goes by itself, and these do, too.
            Err(_) if self.segment < run.len() && self.socket.state.max_gso_segments() == 1 => run
                .chunks(self.segment)
                .try_for_each(|datagram| self.transmit(datagram)),
            result => result,
        }
        .map_err(|error| self.socket.explain(error))
    }

    fn transmit(&self, contents: &[u8]) -> io::Result<()> {
        let Socket { socket, state, .. } = &*self.socket;
        let transmit = Transmit {
            destination: self.to,
            ecn: None,
            contents,
            segment_size: Some(self.segment),
            src_ip: None,
        };
        match state.try_send(socket.into(), &transmit) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&PATIENCE)).map_err(io::Error::from)?;
                match state.try_send(socket.into(), &transmit) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                    result => result,
                }
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::bind;

    #[test]
    fn datagrams_arrive_as_they_were_sent_in_whatever_runs() {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let (_, mut sender, from) = bind(loopback).unwrap();
        let mut receivers = [bind(loopback).unwrap(), bind(loopback).unwrap()];
        // Runs that end with a shorter datagram, before a longer one, with another address, and because they are full.
        let mut plan: Vec<(usize, usize)> = vec![(1200, 0), (1200, 0), (500, 0), (500, 0), (1472, 0)];
        plan.extend([(1472, 1), (1472, 0), (1, 1), (1, 1), (1472, 1)]);
        plan.extend([(1472, 0); 100]);
        for (number, &(len, to)) in plan.iter().enumerate() {
            sender.room()[..len].fill(number as u8);
            sender.commit(len, receivers[to].2).unwrap();
        }
        sender.flush().unwrap();
        for (to, (receiver, ..)) in receivers.iter_mut().enumerate() {
            let mut expected = (0..).zip(&plan).filter(|(_, datagram)| datagram.1 == to);
            let mut left = plan.iter().filter(|datagram| datagram.1 == to).count();
            while left > 0 {
                receiver.wait(Some(Duration::from_secs(10))).unwrap();
                let before = left;
                receiver
                    .receive(|source, datagram| {
                        let (number, &(len, _)) = expected.next().unwrap();
                        assert_eq!((source, &*datagram), (from, &vec![number; len][..]));
                        left -= 1;
                        Ok(())
                    })
                    .unwrap();
                assert!(left < before);
            }
        }
    }
}
