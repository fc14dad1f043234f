//! Connection IDs: those that we issued to the peer, and those that it issued to us (RFC 9000 section 5.1).

use std::net::SocketAddr;

use thin_vec::{ThinVec, thin_vec};

use crate::base::range_set::RangeSet;
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
    active: ThinVec<(u64, LocalCid)>,
    next_sequence: u64,
    /// How many the peer is willing to keep.
    peer_limit: u64,
    /// Sequence numbers of NEW_CONNECTION_ID frames to send.
    pending: ThinVec<u64>,
    /// No longer in use: to be taken out of the caller's tables.
    retired: ThinVec<ConnectionId>,
    /// The peer is asked to retire all below (section 19.15).
    retire_prior_to: u64,
}

impl LocalCids {
    pub(super) fn new(first: LocalCid) -> Self {
        LocalCids {
            active: thin_vec![(0, first)],
            next_sequence: 1,
            peer_limit: 1,
            pending: ThinVec::new(),
            retired: ThinVec::new(),
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
        let wanted = (self.peer_limit.min(LOCAL_CIDS) as usize)
            .saturating_sub(self.active.len() - self.being_replaced());
        // A peer that does not retire what it was asked to gets no more.
        wanted.min(ACTIVE_MAX.saturating_sub(self.active.len()))
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

    /// The peer has gone over to another path, on which it uses the connection ID with this number: it is asked to retire those before, so
    /// that others can take their place, if it has not done so by itself.
    pub(super) fn on_path_validated(&mut self, in_use: u64) {
        self.retire_prior_to = self.retire_prior_to.max(in_use);
    }

    pub(super) fn add(&mut self, cid: LocalCid) {
        self.active.push((self.next_sequence, cid));
        self.pending.push(self.next_sequence);
        self.next_sequence += 1;
    }

    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next NEW_CONNECTION_ID. [`LocalCids::pop_pending`] when it has been written.
    pub(super) fn next_pending(&mut self) -> Option<NewConnectionId> {
        while let Some(&sequence) = self.pending.first() {
            if let Some((_, local)) = self.active.iter().find(|(active, _)| *active == sequence) {
                return Some(NewConnectionId {
                    sequence,
                    retire_prior_to: self.retire_prior_to.min(sequence),
                    cid: local.cid,
                    reset_token: local.token,
                });
            }
            self.pop_pending();
        }
        None
    }

    pub(super) fn pop_pending(&mut self) {
        pop_first(&mut self.pending);
    }

    pub(super) fn on_lost(&mut self, sequence: u64) {
        if !self.pending.contains(&sequence) {
            self.pending.push(sequence);
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
    pub(super) fn has_changes(&self, may_add: bool) -> bool {
        !self.retired.is_empty() || (may_add && self.wanted() > 0)
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
    /// The one of the last validated path, while another path is being validated: should that fail, it is used again, so it is not
    /// retired before (section 9.3).
    previous: Option<Box<Entry>>,
    /// The one that answers to probes from this address go to, so that no other goes to two addresses (section 9.5).
    probe: Option<Box<(SocketAddr, Entry)>>,
    spare: ThinVec<Entry>,
    /// Sequence numbers of connection IDs that we have retired, or are about to. What the peer repeats of them is not new (section 19.15).
    retired: RangeSet,
    /// Everything below is to be retired when it comes.
    retire_prior_to: u64,
    /// Sequence numbers to be retired by a frame.
    pending: ThinVec<u64>,
    changes: ThinVec<ResetTokenChange>,
    /// Where the current token counts.
    remote: SocketAddr,
    /// How often another one has become the current one.
    changed: u32,
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
            previous: None,
            probe: None,
            spare: ThinVec::new(),
            retired: RangeSet::new(),
            retire_prior_to: 0,
            pending: ThinVec::new(),
            changes: ThinVec::new(),
            remote,
            changed: 0,
        }
    }

    /// How often another one has become the current one.
    pub(super) fn changes(&self) -> u32 {
        self.changed
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

    /// The peer has chosen another first connection ID, in one of its first packets or in a Retry.
    pub(super) fn set_first(&mut self, cid: ConnectionId) {
        self.first = cid;
        self.current.cid = cid;
    }

    /// The token of the first connection ID: a server gives it as a transport parameter.
    pub(super) fn set_first_token(&mut self, token: ResetToken) {
        self.current.token = Some(token);
        self.changes.push(ResetTokenChange::Add(self.remote, token));
    }

    /// The connection ID of a server's preferred address has sequence number 1 (section 5.1.1), and is one like the others.
    pub(super) fn add_preferred(
        &mut self,
        cid: ConnectionId,
        token: ResetToken,
    ) -> Result<(), TransportError> {
        if self.current.cid.is_empty() || cid == self.current.cid {
            return Err(TransportError::new(
                TransportErrorCode::TRANSPORT_PARAMETER_ERROR,
                "preferred_address with a connection ID that cannot be (RFC 9000 section 18.2)",
            ));
        }
        self.spare.reserve_exact(1);
        self.spare.push(Entry {
            sequence: 1,
            cid,
            token: Some(token),
        });
        Ok(())
    }

    /// The token of the connection ID in use, and the address from which it counts.
    pub(super) fn reset_token(&self) -> Option<(SocketAddr, ResetToken)> {
        self.current.token.map(|token| (self.remote, token))
    }

    pub(super) fn is_reset_token(&self, token: &ResetToken) -> bool {
        self.current.token.as_ref() == Some(token)
    }

    /// Those that the peer counts as active, as far as we know of them.
    fn active(&self) -> impl Iterator<Item = &Entry> {
        let probe = self.probe.as_deref().map(|(_, entry)| entry);
        self.spare
            .iter()
            .chain([&self.current])
            .chain(self.previous.as_deref())
            .chain(probe)
    }

    /// NEW_CONNECTION_ID arrived (section 19.15).
    pub(super) fn on_new(&mut self, frame: &NewConnectionId) -> Result<(), TransportError> {
        if self.current.cid.is_empty() {
            return Err(violation(
                "NEW_CONNECTION_ID from a peer that uses zero-length connection IDs",
            ));
        }
        if let Some(known) = self.active().find(|entry| entry.sequence == frame.sequence) {
            let same = known.cid == frame.cid && known.token.is_none_or(|token| token == frame.reset_token);
            if !same {
                return Err(violation("NEW_CONNECTION_ID repeated with other content"));
            }
        } else if self.active().any(|entry| entry.cid == frame.cid) {
            return Err(violation("connection ID issued twice"));
        } else if frame.sequence < self.retire_prior_to {
            // Retired before it arrived.
            self.retire(frame.sequence)?;
        } else if !self.retired.contains(frame.sequence) {
            self.spare.reserve_exact(1);
            self.spare.push(Entry {
                sequence: frame.sequence,
                cid: frame.cid,
                token: Some(frame.reset_token),
            });
        }
        self.on_retire_prior_to(frame.retire_prior_to)?;
        if self.active().count() > REMOTE_CIDS_MAX {
            return Err(TransportError::new(
                TransportErrorCode::CONNECTION_ID_LIMIT_ERROR,
                "more connection IDs than the advertised limit",
            ));
        }
        Ok(())
    }

    fn on_retire_prior_to(&mut self, retire_prior_to: u64) -> Result<(), TransportError> {
        if retire_prior_to <= self.retire_prior_to {
            return Ok(());
        }
        self.retire_prior_to = retire_prior_to;
        let spare = std::mem::take(&mut self.spare);
        let (keep, gone): (ThinVec<Entry>, ThinVec<Entry>) = spare
            .into_iter()
            .partition(|entry| entry.sequence >= retire_prior_to);
        self.spare = keep;
        let previous = self.previous.take_if(|entry| entry.sequence < retire_prior_to);
        let previous = previous.map(|entry| *entry);
        let probe = self.probe.take_if(|probe| probe.1.sequence < retire_prior_to);
        let probe = probe.map(|probe| probe.1);
        for entry in gone.into_iter().chain(previous).chain(probe) {
            self.retire(entry.sequence)?;
        }
        if self.current.sequence < retire_prior_to {
            let next = self.take_spare();
            if let Some(old) = self.replace_current(self.remote, next) {
                self.retire(old.sequence)?;
            }
        }
        Ok(())
    }

    /// The spare connection ID with the lowest number.
    fn take_spare(&mut self) -> Option<Entry> {
        let lowest = (0..self.spare.len()).min_by_key(|&index| self.spare[index].sequence);
        lowest.map(|index| self.spare.swap_remove(index))
    }

    /// The connection ID for an answer to a probe from an address that is not in use; `None` if there is none for it. `rebound`: the one in use
    /// will do.
    pub(super) fn for_probe(
        &mut self,
        remote: SocketAddr,
        rebound: bool,
    ) -> Result<Option<ConnectionId>, TransportError> {
        if let Some((_, entry)) = self.probe.as_deref().filter(|probe| probe.0 == remote) {
            return Ok(Some(entry.cid));
        }
        if rebound || self.current.cid.is_empty() {
            return Ok(Some(self.current.cid));
        }
        let Some(entry) = self.take_spare() else {
            return Ok(None);
        };
        // One address at a time is probed from.
        if let Some(before) = self.probe.replace(Box::new((remote, entry))) {
            self.retire(before.1.sequence)?;
        }
        Ok(Some(entry.cid))
    }

    /// Sends to `next`, if there is one, from now on, at `remote`; gives the one in use so far.
    fn replace_current(&mut self, remote: SocketAddr, next: Option<Entry>) -> Option<Entry> {
        if let Some(token) = self.current.token {
            self.changes.push(ResetTokenChange::Remove(self.remote, token));
        }
        self.remote = remote;
        self.changed += u32::from(next.is_some());
        let old = next.map(|next| std::mem::replace(&mut self.current, next));
        if let Some(token) = self.current.token {
            self.changes.push(ResetTokenChange::Add(self.remote, token));
        }
        old
    }

    /// The peer is at another address: an observer must not be able to tell from the connection ID that both paths carry one connection
    /// (section 9.5). `keep`: the path so far was validated, and its connection ID is kept until the new one is; else it is retired.
    pub(super) fn on_path_change(&mut self, remote: SocketAddr, keep: bool) -> Result<(), TransportError> {
        // Answers to its probes were on their way there with one already.
        let probed = self.probe.take_if(|probe| probe.0 == remote);
        let next = probed.map(|probe| probe.1).or_else(|| self.take_spare());
        match self.replace_current(remote, next) {
            Some(old) if keep => {
                debug_assert!(self.previous.is_none(), "one path at a time is being validated");
                self.previous = Some(Box::new(old));
                Ok(())
            }
            Some(old) => self.retire(old.sequence),
            None => Ok(()),
        }
    }

    /// Goes over to another one on the same path, if there is one.
    pub(super) fn renew(&mut self) -> Result<(), TransportError> {
        let next = self.take_spare();
        match self.replace_current(self.remote, next) {
            Some(old) => self.retire(old.sequence),
            None => Ok(()),
        }
    }

    /// The new path is validated: the one before is given up.
    pub(super) fn on_path_validated(&mut self) -> Result<(), TransportError> {
        match self.previous.take() {
            Some(old) => self.retire(old.sequence),
            None => Ok(()),
        }
    }

    /// Back to the path before, with its connection ID; that of the path which is given up is retired.
    pub(super) fn on_path_return(&mut self, remote: SocketAddr) -> Result<(), TransportError> {
        let previous = self.previous.take();
        match self.replace_current(remote, previous.map(|entry| *entry)) {
            Some(given_up) => self.retire(given_up.sequence),
            None => Ok(()),
        }
    }

    fn retire(&mut self, sequence: u64) -> Result<(), TransportError> {
        if !self.retired.insert_one(sequence) {
            return Ok(());
        }
        // A gap is a connection ID of which we have not heard; the peer may have no more of them than of others.
        if self.pending.len() >= RETIRING_MAX || self.retired.len() > RETIRING_MAX {
            return Err(TransportError::new(
                TransportErrorCode::CONNECTION_ID_LIMIT_ERROR,
                "more connection IDs to retire than we keep track of",
            ));
        }
        self.pending.push(sequence);
        Ok(())
    }

    /// The next RETIRE_CONNECTION_ID. [`RemoteCids::pop_retirement`] when it has been written.
    #[inline]
    pub(super) fn next_retirement(&self) -> Option<u64> {
        self.pending.first().copied()
    }

    pub(super) fn pop_retirement(&mut self) {
        pop_first(&mut self.pending);
    }

    pub(super) fn on_retirement_lost(&mut self, sequence: u64) {
        // Bounded: only what was popped from here comes back.
        self.pending.push(sequence);
    }

    #[inline]
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn next_change(&mut self) -> Option<ResetTokenChange> {
        pop_first(&mut self.changes)
    }

    /// The connection has ended: the peer cannot reset it any more.
    pub(super) fn forget_tokens(&mut self) {
        if let Some(token) = self.current.token.take() {
            self.changes.push(ResetTokenChange::Remove(self.remote, token));
        }
    }
}

/// Takes the first of a few that seldom wait, and gives the memory back with the last.
fn pop_first<T>(waiting: &mut ThinVec<T>) -> Option<T> {
    if waiting.is_empty() {
        return None;
    }
    let first = waiting.remove(0);
    if waiting.is_empty() {
        *waiting = ThinVec::new();
    }
    Some(first)
}

fn violation(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::PROTOCOL_VIOLATION, reason)
}

/// Connection IDs that a peer has of us at most: the one in use, and spares for changes of path. Each takes some 70 bytes here and in the
/// worker's table.
const LOCAL_CIDS: u64 = 8;
/// With those that it was asked to retire and has not.
const ACTIVE_MAX: usize = 2 * LOCAL_CIDS as usize;
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
            cids.changes.last(),
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
    fn repeated_announcement_of_a_retired_connection_id_does_not_bring_it_back() {
        let mut cids = remote_cids();
        cids.on_new(&new_cid(1, 0)).unwrap();
        cids.on_new(&new_cid(2, 0)).unwrap();
        cids.on_path_change(remote(), false).unwrap();
        cids.on_path_change(remote(), false).unwrap();
        assert_eq!(cids.pending, [0, 1]);
        while cids.next_retirement().is_some() {
            cids.pop_retirement();
        }
        for sequence in [1, 2, 1] {
            cids.on_new(&new_cid(sequence, 0)).unwrap();
        }
        assert!(cids.spare.is_empty(), "retired ones are not spare ones");
        // Three more are within the limit.
        for sequence in [3, 4, 5] {
            cids.on_new(&new_cid(sequence, 0)).unwrap();
        }
        cids.on_new(&new_cid(1, 0)).unwrap();
        assert_eq!(
            cids.pending, [0; 0],
            "each is retired by one frame, and by another only if that is lost"
        );
    }

    #[test]
    fn connection_id_that_arrives_after_a_later_one_was_retired_is_new() {
        let mut cids = remote_cids();
        cids.on_new(&new_cid(2, 0)).unwrap();
        cids.on_path_change(remote(), false).unwrap();
        cids.on_new(&new_cid(3, 0)).unwrap();
        cids.on_path_change(remote(), false).unwrap();
        cids.on_new(&new_cid(1, 0)).unwrap();
        cids.on_path_change(remote(), false).unwrap();
        assert_eq!(cids.current().as_bytes(), [1; 8]);
        assert_eq!(cids.pending, [0, 2, 3]);
    }

    #[test]
    fn connection_id_of_a_path_is_kept_until_the_next_one_is_validated() {
        let mut cids = remote_cids();
        for sequence in 1..4 {
            cids.on_new(&new_cid(sequence, 0)).unwrap();
        }
        cids.on_path_change(remote(), true).unwrap();
        assert_eq!(
            (cids.current().as_bytes(), cids.next_retirement()),
            (&[1; 8][..], None)
        );
        // A further address, before that one is validated, and back to the first.
        cids.on_path_change(remote(), false).unwrap();
        assert_eq!(
            (cids.current().as_bytes(), cids.next_retirement()),
            (&[2; 8][..], Some(1))
        );
        cids.on_path_return(remote()).unwrap();
        assert_eq!(
            (cids.current().as_bytes(), &cids.pending),
            (&[0; 8][..], &thin_vec![1, 2])
        );
        cids.on_path_change(remote(), true).unwrap();
        cids.on_path_validated().unwrap();
        assert_eq!(
            (cids.current().as_bytes(), &cids.pending),
            (&[3; 8][..], &thin_vec![1, 2, 0])
        );
    }

    #[test]
    fn retire_prior_to_of_a_repeated_frame_counts() {
        let mut cids = remote_cids();
        cids.on_new(&new_cid(1, 0)).unwrap();
        cids.on_new(&new_cid(1, 1)).unwrap();
        assert_eq!(
            (cids.current().as_bytes(), cids.next_retirement()),
            (&[1; 8][..], Some(0))
        );
    }

    #[test]
    fn connection_id_of_the_preferred_address_is_retired_like_others() {
        let mut cids = remote_cids();
        let first = new_cid(1, 0);
        cids.add_preferred(first.cid, first.reset_token).unwrap();
        cids.on_new(&new_cid(2, 2)).unwrap();
        assert_eq!(cids.current().as_bytes(), [2; 8]);
        assert_eq!(cids.pending, [1, 0]);
        let same = remote_cids().add_preferred(ConnectionId::new(&[0; 8]).unwrap(), first.reset_token);
        assert_eq!(
            same.unwrap_err().code,
            TransportErrorCode::TRANSPORT_PARAMETER_ERROR
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
