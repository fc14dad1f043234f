//! Changes of the peer's address, and path validation (RFC 9000 sections 8.2 and 9).

use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;
use ringway_types::Instant;

use super::Connection;
use super::close::CloseReason;
use super::events::Event;
use super::paths::{Challenge, Path, PathAddress, PathResponses, PreviousPath};
use super::transmit::PathFrames;
use crate::crypto::suite::TAG_LEN;
use crate::path::mtu::BASE_PLPMTU;
use crate::recovery::rtt::RttEstimator;
use crate::wire::frame::PATH_FRAME_LEN;
use crate::wire::{Side, Space};

impl Connection {
    /// Whether packets from another address of the peer are looked at.
    pub(super) fn may_migrate(&self) -> bool {
        // Servers do not move (section 9), and nobody does before the handshake is confirmed.
        self.side == Side::Server && self.handshake.confirmed && self.config.migration && self.is_open()
    }

    /// The peer sends from another address, to our connection ID with number `local_cid`, a datagram of `received` bytes: it is answered
    /// there from now on, and has to show that it receives there.
    pub(super) fn migrate(
        &mut self,
        now: Instant,
        address: PathAddress,
        received: usize,
        local_cid: Option<u64>,
    ) {
        // The endpoint stays: all endpoints of a port send from the same address, and this one is on our device.
        let address = PathAddress {
            port: self.path.address.port,
            ..address
        };
        if let Some(previous) = self
            .previous_path
            .take_if(|previous| previous.path.address.remote == address.remote)
        {
            // Back to where it came from: that path is validated.
            self.return_to(now, *previous);
            return;
        }
        let rtt = *self.recovery.rtt();
        let mut path = Path::new(now, address, &self.config, false);
        path.ecn = self.path.ecn;
        if is_rebinding(&path, &self.path) {
            path.mtu = self.path.mtu;
            mem::swap(&mut path.controller, &mut self.path.controller);
        } else {
            path.ecn.on_path_change(self.config.ecn);
            self.recovery
                .on_path_change(RttEstimator::new(self.config.initial_rtt));
        }
        path.local_cid = local_cid.unwrap_or(self.path.local_cid);
        path.on_received(received);
        path.challenge = Some(Box::new(self.new_challenge(now)));
        let old = mem::replace(&mut self.path, path);
        let cids = &mut self.content.remote_cids;
        let changed = if old.validated {
            self.previous_path = Some(Box::new(PreviousPath { path: old, rtt }));
            // One that was validated with less than full datagrams gives way to it.
            cids.on_path_validated()
                .and_then(|()| cids.on_path_change(address.remote, true))
        } else {
            cids.on_path_change(address.remote, false)
        };
        self.check(now, changed);
        self.on_mtu_changed();
    }

    /// The last path that was validated is in use again, the present one is given up.
    fn return_to(&mut self, now: Instant, previous: PreviousPath) {
        let PreviousPath { mut path, rtt } = previous;
        if is_rebinding(&path, &self.path) {
            mem::swap(&mut path.controller, &mut self.path.controller);
        } else {
            self.recovery.on_path_change(rtt);
        }
        path.ecn.on_return(&self.path.ecn);
        let returned = self.content.remote_cids.on_path_return(path.address.remote);
        self.path = path;
        self.check(now, returned);
        self.on_mtu_changed();
    }

    fn new_challenge(&mut self, now: Instant) -> Challenge {
        let mut data = [0; 8];
        self.random().fill_bytes(&mut data);
        let pto = self.recovery.pto(Space::Data).max(self.config.initial_rtt);
        Challenge {
            data,
            pending: true,
            expanded: true,
            resend: Instant::FAR_FUTURE,
            expires: now + pto * VALIDATION_PTOS,
        }
    }

    /// PATH_CHALLENGE arrived from `address`, in a datagram of which `received` bytes are not yet counted, sent to our connection ID
    /// with number `cid_sequence`.
    pub(super) fn on_path_challenge(
        &mut self,
        address: PathAddress,
        received: usize,
        cid_sequence: u64,
        data: [u8; 8],
    ) {
        let waiting = self
            .path_responses
            .iter()
            .position(|responses| responses.address.remote == address.remote);
        let index = match waiting {
            Some(index) => index,
            None if self.path_responses.len() < ADDRESSES_MAX => {
                let address = PathAddress {
                    port: self.path.address.port,
                    ..address
                };
                self.path_responses
                    .push(PathResponses::new(address, cid_sequence));
                self.path_responses.len() - 1
            }
            None => return,
        };
        let responses = &mut self.path_responses[index];
        responses.allowance += 3 * received;
        if responses.data.len() < RESPONSES_MAX {
            responses.data.push(data);
        }
    }

    pub(super) fn on_path_response(&mut self, now: Instant, data: [u8; 8]) {
        let Some(challenge) = self.path.challenge.take_if(|challenge| challenge.data == data) else {
            return;
        };
        self.path.validated = true;
        if !challenge.expanded {
            // The peer is there; whether full datagrams get there is not known (section 8.2.1).
            self.path.challenge = Some(Box::new(self.new_challenge(now)));
            return;
        }
        self.previous_path = None;
        let retired = self.content.remote_cids.on_path_validated();
        self.check(now, retired);
        self.content.local_cids.on_path_validated(self.path.local_cid);
        self.content.stats.path_changes += 1;
        let remote = self.path.address.remote;
        self.content.events.push_back(Event::PeerAddressChanged(remote));
        self.idle.restart(now);
    }

    /// Packets of the peer arrive at another local address: the one to answer from.
    pub(super) fn on_local_address(&mut self, local: SocketAddr) {
        let known = !self.path.address.local.ip().is_unspecified();
        self.path.address.local = local;
        if known && self.handshake.complete {
            self.content.events.push_back(Event::LocalAddressChanged(local));
        }
    }

    #[inline]
    pub(super) fn has_path_frames(&self) -> bool {
        !self.path_responses.is_empty()
            || self
                .path
                .challenge
                .as_ref()
                .is_some_and(|challenge| challenge.pending)
    }

    /// The next frames about a path, and where they go.
    pub(super) fn next_path_frames(&mut self, now: Instant) -> Option<PathFrames> {
        while let Some(responses) = self.path_responses.pop() {
            if let Some(frames) = self.path_responses_to(now, responses) {
                return Some(frames);
            }
        }
        let allowance = self.path.amplification_allowance();
        let resend = now + self.recovery.pto(Space::Data).max(RESEND_MIN);
        let challenge = self
            .path
            .challenge
            .as_mut()
            .filter(|challenge| challenge.pending)?;
        challenge.pending = false;
        challenge.resend = resend;
        if allowance < PATH_OVERHEAD + PATH_FRAME_LEN {
            return None;
        }
        challenge.expanded &= allowance >= usize::from(BASE_PLPMTU);
        Some(PathFrames {
            address: self.path.address,
            dcid: *self.content.remote_cids.current(),
            allowance,
            responses: Vec::new(),
            challenge: Some(challenge.data),
        })
    }

    /// Answers to challenges from an address: as many as three times the bytes that came allow (section 8.2.2), and none if all connection
    /// IDs of the peer are in use elsewhere.
    fn path_responses_to(&mut self, now: Instant, responses: PathResponses) -> Option<PathFrames> {
        let PathResponses {
            address,
            cid_sequence,
            mut data,
            allowance,
        } = responses;
        let cids = &mut self.content.remote_cids;
        let (dcid, allowance) = if address.remote == self.path.address.remote {
            (*cids.current(), self.path.amplification_allowance())
        } else if allowance < PATH_OVERHEAD + PATH_FRAME_LEN {
            return None;
        } else {
            // Who sends from another address to the connection ID in use has been moved by the network, not by his own will: an observer
            // learns nothing from the same one in our answer (section 9.5).
            let rebound = cid_sequence == self.path.local_cid;
            let dcid = match cids.for_probe(address.remote, rebound) {
                Ok(dcid) => dcid?,
                Err(error) => {
                    self.fail(now, error);
                    return None;
                }
            };
            (dcid, allowance)
        };
        data.truncate(allowance.saturating_sub(PATH_OVERHEAD) / PATH_FRAME_LEN);
        (!data.is_empty()).then_some(PathFrames {
            address,
            dcid,
            allowance,
            responses: data,
            challenge: None,
        })
    }

    #[inline]
    pub(super) fn path_deadline(&self) -> Option<Instant> {
        let challenge = self.path.challenge.as_ref()?;
        Some(challenge.resend.min(challenge.expires))
    }

    pub(super) fn on_path_timeout(&mut self, now: Instant) {
        let Some(challenge) = &mut self.path.challenge else {
            return;
        };
        if now >= challenge.expires {
            match self.previous_path.take() {
                // Section 9.3.2: back to the last address that was validated.
                Some(previous) => {
                    self.content.stats.path_failures += 1;
                    self.return_to(now, *previous);
                }
                // The peer is there, and there is no path that is known to be better.
                None if self.path.validated => self.path.challenge = None,
                None => {
                    self.content.stats.path_failures += 1;
                    self.end_silently(CloseReason::NoViablePath);
                }
            }
        } else if now >= challenge.resend {
            challenge.pending = true;
            challenge.resend = Instant::FAR_FUTURE;
        }
    }
}

/// Only the port is another: most likely the same path behind a NAT (section 9.4), of which all that is known holds.
fn is_rebinding(one: &Path, other: &Path) -> bool {
    one.address.remote.ip() == other.address.remote.ip()
}

/// Probe timeouts after which a path counts as failed (section 8.2.4).
const VALIDATION_PTOS: u32 = 3;
const RESEND_MIN: Duration = Duration::from_millis(10);
/// Responses for one address that wait for a packet, and addresses with such; a peer that asks faster gets fewer answers.
const RESPONSES_MAX: usize = 4;
const ADDRESSES_MAX: usize = 4;
/// What a packet has beside its frames at most: a short header, and the tag.
const PATH_OVERHEAD: usize = 1 + 20 + 4 + TAG_LEN;
