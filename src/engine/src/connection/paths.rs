//! The network path of a connection: addresses, validation, anti-amplification, congestion (RFC 9000 sections 8 and 9).

use std::net::SocketAddr;

use ringway_types::{Instant, PortId};

use super::config::Config;
use crate::congestion::Controller;
use crate::congestion::pacer::{Pace, Pacer};
use crate::path::ecn::EcnValidation;
use crate::path::mtu::MtuDiscovery;
use crate::recovery::rtt::RttEstimator;

/// The addresses of both ends of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathAddress {
    /// The local endpoint.
    pub port: PortId,
    /// Local address; its IP may be unspecified until a packet has arrived.
    pub local: SocketAddr,
    /// Address of the peer.
    pub remote: SocketAddr,
}

/// One path and what is known of it.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) address: PathAddress,
    /// The peer has shown that it receives at its address.
    pub(super) validated: bool,
    /// Bytes received and sent while it had not (section 8.1).
    received: u64,
    sent: u64,
    pub(super) challenge: Option<Box<Challenge>>,
    /// Sequence number of the connection ID of ours that the peer uses on it.
    pub(super) local_cid: u64,
    pub(super) controller: Controller,
    pub(super) pacer: Pacer,
    pub(super) mtu: MtuDiscovery,
    pub(super) ecn: EcnValidation,
}

/// What keeps data back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Blocked {
    /// Nothing.
    No,
    /// The congestion window: until an acknowledgement comes.
    CongestionWindow,
    /// The pacer: for a while.
    Pacing,
}

/// A path validation under way (section 8.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Challenge {
    pub(super) data: [u8; 8],
    /// The frame is to be sent (again).
    pub(super) pending: bool,
    /// It went out in full datagrams only: the path carries those (section 8.2.1).
    pub(super) expanded: bool,
    /// When it is sent again.
    pub(super) resend: Instant,
    /// When the path is given up.
    pub(super) expires: Instant,
}

/// The last path that was validated, while another one is being validated.
#[derive(Debug)]
pub(super) struct PreviousPath {
    pub(super) path: Path,
    /// Its round trip time, as it was when it was left.
    pub(super) rtt: RttEstimator,
}

/// Answers that are owed to challenges from one address of the peer (section 8.2.2).
#[derive(Debug)]
pub(super) struct PathResponses {
    pub(super) address: PathAddress,
    /// Sequence number of the connection ID of ours that the peer used.
    pub(super) cid_sequence: u64,
    pub(super) data: Vec<[u8; 8]>,
    /// Bytes that may be sent there, unless it is the address in use: three times what came.
    pub(super) allowance: usize,
}

impl PathResponses {
    pub(super) fn new(address: PathAddress, cid_sequence: u64) -> Self {
        PathResponses {
            address,
            cid_sequence,
            data: Vec::new(),
            allowance: 0,
        }
    }
}

impl Path {
    pub(super) fn new(now: Instant, address: PathAddress, config: &Config, validated: bool) -> Self {
        let mtu = config.mtu_discovery(address.remote.is_ipv6());
        Path {
            address,
            validated,
            received: 0,
            sent: 0,
            challenge: None,
            local_cid: 0,
            controller: config.controller(mtu.current()),
            pacer: Pacer::new(now),
            mtu,
            ecn: EcnValidation::new(config.ecn),
        }
    }

    /// Bytes that may be sent to an address that is not validated: three times what came from it.
    #[inline]
    pub(super) fn amplification_allowance(&self) -> usize {
        if self.validated {
            return usize::MAX;
        }
        (3 * self.received).saturating_sub(self.sent) as usize
    }

    #[inline]
    pub(super) fn on_received(&mut self, bytes: usize) {
        if !self.validated {
            self.received += bytes as u64;
        }
    }

    #[inline]
    pub(super) fn on_sent(&mut self, bytes: usize) {
        if !self.validated {
            self.sent += bytes as u64;
        }
    }

    /// What counted as sent has not left.
    pub(super) fn on_refused(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_sub(bytes as u64);
    }

    #[inline]
    pub(super) fn pace(&self, rtt: &RttEstimator) -> Pace {
        Pace {
            window: self.controller.window(),
            rtt: rtt.smoothed(),
            slow_start: self.controller.in_slow_start(),
            mtu: u64::from(self.mtu.current()),
        }
    }
}

/// The least that is worth sending while the anti-amplification limit holds: below it, the peer has to send first.
pub(super) const DATAGRAM_MIN: usize = 256;
