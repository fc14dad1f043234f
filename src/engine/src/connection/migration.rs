//! Changes of the peer's address, and path validation (RFC 9000 sections 8.2 and 9).

use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;
use ringway_types::Instant;

use super::Connection;
use super::close::CloseReason;
use super::events::Event;
use super::paths::{Challenge, Path, PathAddress};
use super::transmit::PathFrame;
use crate::wire::{Side, Space};

impl Connection {
    /// Whether packets from another address of the peer are looked at.
    pub(super) fn may_migrate(&self) -> bool {
        // Servers do not move (section 9), and nobody does before the handshake is confirmed.
        self.side == Side::Server && self.handshake.confirmed && self.config.migration && self.is_open()
    }

    /// The peer sends from another address: it is answered there from now on, and has to show that it receives there.
    pub(super) fn migrate(&mut self, now: Instant, address: PathAddress, received: usize) {
        // The endpoint stays: all endpoints of a port send from the same address, and this one is on our device.
        let address = PathAddress {
            port: self.path.address.port,
            ..address
        };
        if let Some(previous) = self
            .previous_path
            .take_if(|previous| previous.address.remote == address.remote)
        {
            // Back to where it came from: that path is validated.
            self.path = *previous;
            self.after_migration(address.remote);
            return;
        }
        let only_port = address.remote.ip() == self.path.address.remote.ip();
        let mut path = Path::new(now, address, &self.config, false);
        if only_port {
            // Most likely the same path behind a NAT (section 9.4): what is known of it holds.
            path.mtu = self.path.mtu;
            mem::swap(&mut path.controller, &mut self.path.controller);
            path.ecn = self.path.ecn;
        } else {
            self.recovery.reset_rtt(self.config.initial_rtt);
        }
        path.on_received(received);
        path.challenge = Some(self.new_challenge(now));
        let old = mem::replace(&mut self.path, path);
        if old.validated {
            self.previous_path = Some(Box::new(old));
        }
        self.after_migration(address.remote);
    }

    fn after_migration(&mut self, remote: SocketAddr) {
        // An observer cannot tell from the connection ID that both paths carry one connection (section 9.5).
        let rotated = self.content.remote_cids.rotate(remote);
        debug_assert!(
            rotated.is_ok(),
            "spare connection IDs are fewer than retirements that may wait"
        );
        self.on_mtu_changed();
    }

    fn new_challenge(&mut self, now: Instant) -> Challenge {
        let mut data = [0; 8];
        self.random().fill_bytes(&mut data);
        let pto = self.recovery.pto(Space::Data).max(self.config.initial_rtt);
        Challenge {
            data,
            pending: true,
            resend: Instant::FAR_FUTURE,
            expires: now + pto * VALIDATION_PTOS,
        }
    }

    pub(super) fn on_path_challenge(&mut self, address: PathAddress, data: [u8; 8]) {
        if self.path_responses.len() < RESPONSES_MAX {
            let address = PathAddress {
                port: self.path.address.port,
                ..address
            };
            self.path_responses.push((address, data));
        }
    }

    pub(super) fn on_path_response(&mut self, now: Instant, data: [u8; 8]) {
        if self.path.challenge.is_none_or(|challenge| challenge.data != data) {
            return;
        }
        self.path.challenge = None;
        self.path.validated = true;
        self.previous_path = None;
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
        !self.path_responses.is_empty() || self.path.challenge.is_some_and(|challenge| challenge.pending)
    }

    /// The next frame about a path, the path, and how many bytes may go there.
    pub(super) fn next_path_frame(&mut self, now: Instant) -> Option<(PathAddress, PathFrame, usize)> {
        if let Some((address, data)) = self.path_responses.pop() {
            let same = address.remote == self.path.address.remote;
            // What a challenge came in was as large as the answer: no amplification.
            let allowance = if same {
                self.path.amplification_allowance()
            } else {
                usize::MAX
            };
            return Some((address, PathFrame::Response(data), allowance));
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
        Some((self.path.address, PathFrame::Challenge(challenge.data), allowance))
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
                    let remote = previous.address.remote;
                    let failed = mem::replace(&mut self.path, *previous);
                    if failed.address.remote.ip() == remote.ip() {
                        self.path.controller = failed.controller;
                    }
                    self.after_migration(remote);
                }
                None => self.end_silently(CloseReason::NoViablePath),
            }
        } else if now >= challenge.resend {
            challenge.pending = true;
            challenge.resend = Instant::FAR_FUTURE;
        }
    }
}

/// Probe timeouts after which a path counts as failed (section 8.2.4).
const VALIDATION_PTOS: u32 = 3;
const RESEND_MIN: Duration = Duration::from_millis(10);
/// Responses that wait for a packet; a peer that asks faster gets fewer answers.
const RESPONSES_MAX: usize = 4;
