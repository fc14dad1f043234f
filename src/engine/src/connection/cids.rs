//! Connection IDs: those that we issued to the peer, and those that it issued to us (RFC 9000 section 5.1).

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::wire::cid::{ConnectionId, ResetToken};
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::frame::NewConnectionId;

/// A connection ID that we issue, and its stateless reset token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalCid {
    /// The connection ID.
    pub cid: ConnectionId,
    /// Its stateless reset token.
    pub token: ResetToken,
}

/// A change of the tokens with which the peer may reset the connection statelessly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetTokenChange {
    /// The peer at this address may use the token.
    Add(SocketAddr, ResetToken),
    /// The peer at this address may no longer use it.
    Remove(SocketAddr, ResetToken),
}

/// Connection IDs that we issued. The caller makes them, because they contain the index of the partition.
#[derive(Debug)]
pub(super) struct LocalCids {
    active: Vec<(u64, LocalCid)>,
    next_sequence: u64,
    /// How many the peer is willing to keep.
    peer_limit: u64,
    /// Sequence numbers of NEW_CONNECTION_ID frames to send.
    pending: VecDeque<u64>,
    /// No longer in use: to be taken out of the caller's tables.
    retired: Vec<ConnectionId>,
    /// The peer is asked to retire all below (section 19.15).
    retire_prior_to: u64,
}

impl LocalCids {
    pub(super) fn new(first: LocalCid) -> Self {
        LocalCids {
            active: vec![(0, first)],
            next_sequence: 1,
            peer_limit: 1,
            pending: VecDeque::new(),
            retired: Vec::new(),
            retire_prior_to: 0,
        }
    }

    /// The one of the handshake, for the long header.
    pub(super) fn first(&self) -> LocalCid {
        self.active[0].1
    }

    pub(super) fn all(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.active.iter().map(|(_, cid)| cid.cid)
    }

    #[inline]
    pub(super) fn sequence_of(&self, cid: &[u8]) -> Option<u64> {
        self.active
            .iter()
            .find(|(_, local)| local.cid.as_bytes() == cid)
            .map(|&(sequence, _)| sequence)
    }

    pub(super) fn set_peer_limit(&mut self, limit: u64) {
        self.peer_limit = limit;
    }

    /// How many more the peer should have.
    #[inline]
    pub(super) fn wanted(&self) -> usize {
        (self.peer_limit.min(LOCAL_CIDS) as usize).saturating_sub(self.active.len() - self.being_replaced())
    }

    /// Asks the peer to go over to others than those it has now, which are to be added. It may have both for a while (section 5.1.1).
    pub(super) fn replace_all(&mut self) {
        self.retire_prior_to = self.next_sequence;
    }

    /// How many the peer has yet to retire of those that it was asked to.
    #[inline]
    pub(super) fn being_replaced(&self) -> usize {
        self.active
            .iter()
            .filter(|(sequence, _)| *sequence < self.retire_prior_to)
            .count()
    }

    pub(super) fn add(&mut self, cid: LocalCid) {
        self.active.push((self.next_sequence, cid));
        self.pending.push_back(self.next_sequence);
        self.next_sequence += 1;
    }

    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next NEW_CONNECTION_ID. [`LocalCids::pop_pending`] when it has been written.
    pub(super) fn next_pending(&mut self) -> Option<NewConnectionId> {
        while let Some(&sequence) = self.pending.front() {
            if let Some((_, local)) = self.active.iter().find(|(active, _)| *active == sequence) {
                return Some(NewConnectionId {
                    sequence,
                    retire_prior_to: self.retire_prior_to.min(sequence),
                    cid: local.cid,
                    reset_token: local.token,
                });
            }
            self.pending.pop_front();
        }
        None
    }

    pub(super) fn pop_pending(&mut self) {
        self.pending.pop_front();
    }

    pub(super) fn on_lost(&mut self, sequence: u64) {
        if !self.pending.contains(&sequence) {
            self.pending.push_back(sequence);
        }
    }

    /// RETIRE_CONNECTION_ID arrived in a packet that was sent to the ID with sequence number `used`.
    pub(super) fn on_retire(&mut self, sequence: u64, used: Option<u64>) -> Result<(), TransportError> {
        if sequence >= self.next_sequence {
            return Err(violation(
                "RETIRE_CONNECTION_ID of a connection ID that was never issued",
            ));
        }
        if used == Some(sequence) {
            return Err(violation(
                "RETIRE_CONNECTION_ID of the connection ID that carried it",
            ));
        }
        if let Some(index) = self.active.iter().position(|(active, _)| *active == sequence) {
            let (_, local) = self.active.remove(index);
            self.retired.push(local.cid);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn has_changes(&self) -> bool {
        !self.retired.is_empty() || self.wanted() > 0
    }

    pub(super) fn next_retired(&mut self) -> Option<ConnectionId> {
        self.retired.pop()
    }
}

/// Connection IDs that the peer issued.
#[derive(Debug)]
pub(super) struct RemoteCids {
    /// The one of the handshake: what the peer's long headers say they come from.
    first: ConnectionId,
    current: Entry,
    spare: Vec<Entry>,
    /// Everything below has been retired.
    retired_below: u64,
    /// Sequence numbers to be retired by a frame.
    pending: VecDeque<u64>,
    changes: VecDeque<ResetTokenChange>,
    /// Where the current token counts.
    remote: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sequence: u64,
    cid: ConnectionId,
    token: Option<ResetToken>,
}

impl RemoteCids {
    pub(super) fn new(first: ConnectionId, remote: SocketAddr) -> Self {
        RemoteCids {
            first,
            current: Entry {
                sequence: 0,
                cid: first,
                token: None,
            },
            spare: Vec::new(),
            retired_below: 0,
            pending: VecDeque::new(),
            changes: VecDeque::new(),
            remote,
        }
    }

    /// The one to send to.
    #[inline]
    pub(super) fn current(&self) -> &ConnectionId {
        &self.current.cid
    }

    /// The one that the peer's long headers say they come from, whatever it has given to us since.
    pub(super) fn first(&self) -> &ConnectionId {
        &self.first
    }

    /// The peer has chosen another first connection ID, in its first packet or in a Retry.
    pub(super) fn set_first(&mut self, cid: ConnectionId) {
        self.first = cid;
        self.current.cid = cid;
    }

    /// The token of the first connection ID: a server gives it as a transport parameter.
    pub(super) fn set_first_token(&mut self, token: ResetToken) {
        self.current.token = Some(token);
        self.changes.push_back(ResetTokenChange::Add(self.remote, token));
    }

    /// The token of the connection ID in use, and the address from which it counts.
    pub(super) fn reset_token(&self) -> Option<(SocketAddr, ResetToken)> {
        self.current.token.map(|token| (self.remote, token))
    }

    pub(super) fn is_reset_token(&self, token: &ResetToken) -> bool {
        self.current.token.as_ref() == Some(token)
    }

    /// NEW_CONNECTION_ID arrived (section 19.15).
    pub(super) fn on_new(&mut self, frame: &NewConnectionId) -> Result<(), TransportError> {
        if self.current.cid.is_empty() {
            return Err(violation(
                "NEW_CONNECTION_ID from a peer that uses zero-length connection IDs",
            ));
        }
        let known = self
            .spare
            .iter()
            .chain([&self.current])
            .find(|entry| entry.sequence == frame.sequence);
        if let Some(known) = known {
            let same = known.cid == frame.cid && known.token.is_none_or(|token| token == frame.reset_token);
            return if same {
                Ok(())
            } else {
                Err(violation("NEW_CONNECTION_ID repeated with other content"))
            };
        }
        if self
            .spare
            .iter()
            .chain([&self.current])
            .any(|entry| entry.cid == frame.cid)
        {
            return Err(violation("connection ID issued twice"));
        }
        if frame.sequence < self.retired_below {
            // Retired before it arrived.
            return self.retire(frame.sequence);
        }
        self.spare.push(Entry {
            sequence: frame.sequence,
            cid: frame.cid,
            token: Some(frame.reset_token),
        });
        if frame.retire_prior_to > self.retired_below {
            self.retired_below = frame.retire_prior_to;
            let (keep, gone) = self
                .spare
                .iter()
                .partition(|entry| entry.sequence >= frame.retire_prior_to);
            self.spare = keep;
            let gone: Vec<Entry> = gone;
            for entry in gone {
                self.retire(entry.sequence)?;
            }
            if self.current.sequence < frame.retire_prior_to {
                self.rotate(self.remote)?;
            }
        }
        if self.spare.len() + 1 > REMOTE_CIDS_MAX {
            return Err(TransportError::new(
                TransportErrorCode::CONNECTION_ID_LIMIT_ERROR,
                "more connection IDs than the advertised limit",
            ));
        }
        Ok(())
    }

    /// Goes over to a spare connection ID and retires the current one. False if there is no spare one.
    pub(super) fn rotate(&mut self, remote: SocketAddr) -> Result<bool, TransportError> {
        if let Some(token) = self.current.token {
            self.changes
                .push_back(ResetTokenChange::Remove(self.remote, token));
        }
        self.remote = remote;
        let lowest = (0..self.spare.len()).min_by_key(|&index| self.spare[index].sequence);
        let rotated = match lowest {
            Some(index) => {
                let old = std::mem::replace(&mut self.current, self.spare.swap_remove(index));
                self.retire(old.sequence)?;
                true
            }
            None => false,
        };
        if let Some(token) = self.current.token {
            self.changes.push_back(ResetTokenChange::Add(self.remote, token));
        }
        Ok(rotated)
    }

    fn retire(&mut self, sequence: u64) -> Result<(), TransportError> {
        if self.pending.contains(&sequence) {
            return Ok(());
        }
        if self.pending.len() >= RETIRING_MAX {
            return Err(TransportError::new(
                TransportErrorCode::CONNECTION_ID_LIMIT_ERROR,
                "more connection IDs to retire than we keep track of",
            ));
        }
        self.pending.push_back(sequence);
        Ok(())
    }

    /// The next RETIRE_CONNECTION_ID. [`RemoteCids::pop_retirement`] when it has been written.
    #[inline]
    pub(super) fn next_retirement(&self) -> Option<u64> {
        self.pending.front().copied()
    }

    pub(super) fn pop_retirement(&mut self) {
        self.pending.pop_front();
    }

    pub(super) fn on_retirement_lost(&mut self, sequence: u64) {
        // Bounded: only what was popped from here comes back.
        self.pending.push_back(sequence);
    }

    #[inline]
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn next_change(&mut self) -> Option<ResetTokenChange> {
        self.changes.pop_front()
    }

    /// The connection has ended: the peer cannot reset it any more.
    pub(super) fn forget_tokens(&mut self) {
        if let Some(token) = self.current.token.take() {
            self.changes
                .push_back(ResetTokenChange::Remove(self.remote, token));
        }
    }
}

fn violation(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::PROTOCOL_VIOLATION, reason)
}

/// Connection IDs that a peer has of us: the one in use, and spares for changes of path.
const LOCAL_CIDS: u64 = 3;
/// Connection IDs of a peer that we keep: `active_connection_id_limit`.
pub(super) const REMOTE_CIDS_MAX: usize = 4;
/// Retirements that wait for a packet: a peer that makes us retire faster than packets go out is at fault (section 5.1.2).
const RETIRING_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> SocketAddr {
        "192.0.2.1:443".parse().unwrap()
    }

    fn new_cid(sequence: u64, retire_prior_to: u64) -> NewConnectionId {
        NewConnectionId {
            sequence,
            retire_prior_to,
            cid: ConnectionId::new(&[sequence as u8; 8]).unwrap(),
            reset_token: ResetToken([sequence as u8; 16]),
        }
    }

    fn remote_cids() -> RemoteCids {
        RemoteCids::new(ConnectionId::new(&[0; 8]).unwrap(), remote())
    }

    #[test]
    fn peer_that_gives_more_than_the_limit_is_at_fault() {
        let mut cids = remote_cids();
        for sequence in 1..4 {
            cids.on_new(&new_cid(sequence, 0)).unwrap();
        }
        let error = cids.on_new(&new_cid(4, 0)).unwrap_err();
        assert_eq!(error.code, TransportErrorCode::CONNECTION_ID_LIMIT_ERROR);
    }

    #[test]
    fn retire_prior_to_moves_on_and_retires_what_lies_below() {
        let mut cids = remote_cids();
        cids.on_new(&new_cid(1, 0)).unwrap();
        cids.on_new(&new_cid(3, 2)).unwrap();
        assert_eq!(cids.current().as_bytes(), [3; 8]);
        let mut retired: Vec<u64> = cids.pending.iter().copied().collect();
        retired.sort();
        assert_eq!(retired, [0, 1]);
        cids.on_new(&new_cid(2, 2)).unwrap();
        // One that is late and retired already is retired by a frame at once.
        cids.on_new(&new_cid(5, 5)).unwrap();
        cids.on_new(&new_cid(4, 0)).unwrap();
        assert!(cids.pending.contains(&4));
        assert_eq!(
            cids.changes.back(),
            Some(&ResetTokenChange::Add(remote(), ResetToken([5; 16])))
        );
    }

    #[test]
    fn endless_retirement_is_an_error_and_no_memory() {
        let mut cids = remote_cids();
        let error = (1..1000)
            .find_map(|sequence| cids.on_new(&new_cid(sequence, sequence)).err())
            .unwrap();
        assert_eq!(error.code, TransportErrorCode::CONNECTION_ID_LIMIT_ERROR);
    }

    #[test]
    fn repetition_is_fine_and_contradiction_is_not() {
        let mut cids = remote_cids();
        cids.on_new(&new_cid(1, 0)).unwrap();
        cids.on_new(&new_cid(1, 0)).unwrap();
        let other = NewConnectionId {
            cid: ConnectionId::new(&[9; 8]).unwrap(),
            ..new_cid(1, 0)
        };
        assert!(cids.on_new(&other).is_err());
        assert!(
            cids.on_new(&NewConnectionId {
                sequence: 2,
                ..new_cid(1, 0)
            })
            .is_err()
        );
    }

    #[test]
    fn peer_cannot_retire_what_it_never_had_or_what_it_uses() {
        let local = |byte: u8| LocalCid {
            cid: ConnectionId::new(&[byte; 8]).unwrap(),
            token: ResetToken([byte; 16]),
        };
        let mut cids = LocalCids::new(local(0));
        assert!(cids.on_retire(1, None).is_err());
        assert!(cids.on_retire(0, Some(0)).is_err());
        cids.set_peer_limit(2);
        assert_eq!(cids.wanted(), 1);
        cids.add(local(1));
        assert_eq!(cids.wanted(), 0);
        assert_eq!(cids.next_pending().unwrap().sequence, 1);
        cids.on_retire(0, Some(1)).unwrap();
        assert_eq!(cids.next_retired().unwrap().as_bytes(), [0; 8]);
        assert_eq!(cids.wanted(), 1);
    }
}
