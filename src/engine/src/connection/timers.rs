//! The timers of a connection.

use std::time::Duration;

use ringway_types::Instant;

use super::Connection;
use super::close::{CloseReason, State};
use super::paths::{Blocked, DATAGRAM_MIN};
use crate::recovery::Timeout;
use crate::wire::{Side, Space};

impl Connection {
    /// When [`Connection::on_timeout`] is to be called; `None`: never. Every call to the connection may change it.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Open => {}
            State::Closing(closing) => return Some(closing.until),
            State::Draining { until, .. } => return Some(*until),
            State::Drained => return None,
        }
        // What anti-amplification forbids to send waits for the peer, not for time.
        let may_send = self.path.amplification_allowance() >= DATAGRAM_MIN;
        let acks = self.content.spaces[Space::Data]
            .acks
            .deadline()
            .filter(|_| may_send);
        let paced = if self.blocked == Blocked::Pacing && may_send {
            self.path.pacer.next_release(&self.path.pace(self.recovery.rtt()))
        } else {
            None
        };
        [
            self.probe_deadline(),
            acks,
            self.idle_deadline(),
            // The other begins when this one ends. (With one more in this list the compiler makes a loop of it, which costs 500 instructions.)
            self.handshake_deadline().or_else(|| self.early_deadline()),
            self.unresponsive_deadline(),
            self.keep_alive_deadline(),
            paced,
            self.path_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due at [`Connection::deadline`]. [`Connection::transmit`] should follow.
    pub fn on_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Open => {}
            State::Closing(closing) => {
                if now >= closing.until {
                    self.state = State::Drained;
                }
                return;
            }
            State::Draining { until, .. } => {
                if now >= *until {
                    self.state = State::Drained;
                }
                return;
            }
            State::Drained => return,
        }
        if self.idle_deadline().is_some_and(|deadline| deadline <= now) {
            return self.end_silently(CloseReason::IdleTimeout);
        }
        if self.handshake_deadline().is_some_and(|deadline| deadline <= now) {
            return self.end_late_handshake(now);
        }
        if self
            .unresponsive_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            return self.end_silently(CloseReason::Unresponsive);
        }
        if self.early_deadline().is_some_and(|deadline| deadline <= now) {
            self.on_early_timeout();
        }
        let state = self.handshake_state();
        match self.recovery.on_timeout(now, state, &mut self.content) {
            Timeout::Nothing if self.last_probe_deadline().is_some_and(|deadline| deadline <= now) => {
                self.idle.last_probes += 1;
                self.recovery.expire_early();
                self.probe(now, Space::Data);
            }
            Timeout::Nothing => {}
            Timeout::Lost(loss) => self.on_loss(now, loss),
            Timeout::Probe(space) => self.probe(now, space),
        }
        if self.content.streams.may_be_blocked()
            && self.keep_alive_deadline().is_some_and(|deadline| deadline <= now)
        {
            self.content.streams.repeat_blocked();
        }
        // Not if something is to be sent now.
        if self.keep_alive_deadline().is_some_and(|deadline| deadline <= now) {
            self.content.spaces[Space::Data].ping = true;
        }
        self.on_path_timeout(now);
    }

    #[inline]
    fn probe_deadline(&self) -> Option<Instant> {
        let deadline = self.recovery.deadline(self.handshake_state());
        if self.recovery.pto_count() == 0 {
            return deadline;
        }
        [deadline, self.last_probe_deadline()].into_iter().flatten().min()
    }

    /// When a peer that has fallen silent is probed once more before it is given up; `None`: it was often enough, or it is not silent.
    ///
    /// Each probe timeout is twice as long as the one before (RFC 9002 section 6.2.1), and the one that runs when the path is there again may last
    /// beyond the end of the connection. So the last ones expire early, each when those that are left have just time enough without backoff
    /// (RFC 9000 section 10.1.1).
    #[cold]
    fn last_probe_deadline(&self) -> Option<Instant> {
        let state = self.handshake_state();
        let left = LAST_PROBES - self.idle.last_probes;
        if left == 0 || self.recovery.pto_count() == 0 || !state.confirmed || state.blocked_by_amplification {
            return None;
        }
        let unresponsive = self.unresponsive_deadline()?;
        let end = self
            .idle_deadline()
            .map_or(unresponsive, |idle| idle.min(unresponsive));
        let pto = self.recovery.pto(Space::Data);
        let last = self.recovery.last_ack_eliciting(Space::Data)?;
        Some((end - pto * u32::from(left)).max(last + pto))
    }

    /// Sends again what the oldest packets carried, or a PING, without regard to the congestion window
    /// (RFC 9002 section 6.2.4).
    fn probe(&mut self, now: Instant, space: Space) {
        self.content.stats.probe_timeouts += 1;
        if self.path.mtu.on_probe_timeout(now, self.recovery.pto_count()) {
            self.on_mtu_changed();
        }
        // Other spaces with something outstanding go along: in the handshake the peer may wait for either.
        for other in Space::ALL {
            if self.recovery.has_ack_eliciting(other) && self.handshake.can_send(other) {
                let content = &mut self.content;
                self.recovery
                    .oldest_tokens(other, |token| content.resend(other, token));
                self.probes[other as usize] = 1;
            }
        }
        self.probes[space as usize] = if space == Space::Data { 2 } else { 1 };
        if space == Space::Data {
            self.content.ack_frequency.request_immediate_ack();
        }
    }

    #[inline]
    fn idle_timeout(&self) -> Option<Duration> {
        if !self.handshake.complete {
            return Some(self.config.handshake_idle_timeout);
        }
        let peer = Duration::from_millis(self.handshake.peer.max_idle_timeout_ms);
        let timeout = [self.config.idle_timeout, peer]
            .into_iter()
            .filter(|timeout| !timeout.is_zero())
            .min()?;
        // Section 10.1: at least three probe timeouts.
        Some(timeout.max(self.recovery.pto(Space::Data) * 3))
    }

    #[inline]
    fn idle_deadline(&self) -> Option<Instant> {
        Some(self.idle.since + self.idle_timeout()?)
    }

    /// Every packet restarts the idle timeout: a peer that sends some now and then would keep its handshake for ever.
    #[inline]
    fn handshake_deadline(&self) -> Option<Instant> {
        (!self.handshake.complete).then(|| self.started + self.config.handshake_timeout)
    }

    #[inline]
    fn unresponsive_deadline(&self) -> Option<Instant> {
        let since = self
            .recovery
            .waiting_since()
            .filter(|_| self.handshake.complete)?;
        Some(since + self.config.disconnect_timeout)
    }

    /// Something is to be sent so that the connection lasts: because the application wants it to, or because the peer's limits keep data back
    /// (RFC 9000 section 4.1).
    #[inline]
    fn keep_alive_deadline(&self) -> Option<Instant> {
        let quiet = self.handshake.complete
            && !self.recovery.has_any_ack_eliciting()
            && !self.content.has_data(Space::Data);
        if !quiet {
            return None;
        }
        let mut interval = self.config.keep_alive_interval;
        if self.content.streams.may_be_blocked() {
            interval = self.repeat_interval();
        }
        (!interval.is_zero()).then(|| self.idle.since + interval)
    }

    /// How long data that the peer's limits keep back waits before the peer is told again: three times within the idle timeout, and within the
    /// time after which a peer is given up that has news for us and does not know our new address. Zero: never.
    fn repeat_interval(&self) -> Duration {
        let config = &self.config;
        let idle = self.idle_timeout().map(|timeout| timeout / 3);
        let intervals = [config.keep_alive_interval, config.disconnect_timeout / 3];
        let intervals = intervals.into_iter().chain(idle);
        intervals
            .filter(|interval| !interval.is_zero())
            .min()
            .unwrap_or_default()
    }

    #[inline]
    pub(super) fn handshake_state(&self) -> crate::recovery::HandshakeState {
        crate::recovery::HandshakeState {
            has_handshake_keys: self.handshake.handshake.is_some(),
            confirmed: self.handshake.confirmed,
            address_validated_by_peer: self.side == Side::Server || self.handshake.validated_by_peer,
            blocked_by_amplification: self.path.amplification_allowance() < DATAGRAM_MIN,
        }
    }
}

/// So many probes before the end come early.
const LAST_PROBES: u8 = 3;
