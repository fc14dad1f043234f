//! Address validation tokens (RFC 9000 section 8.1).
//!
//! A token is sealed with a key that follows from the server's secret and the day, so that several servers with one
//! secret understand each other's tokens and no token outlives its key by much. It serves one version of QUIC (RFC 9369 section 5), which is
//! part of what is authenticated.

use std::collections::HashSet;
use std::mem;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};

use crate::base::coding::{Reader, UnexpectedEnd, Writer};
use crate::wire::Version;
use crate::wire::cid::ConnectionId;

/// Seconds for which a Retry token may be used: a round trip and a retransmission or two.
const RETRY_LIFETIME_SECS: u64 = 15;
/// Seconds for which a NEW_TOKEN token may be used, and after which the key changes.
const NEW_TOKEN_LIFETIME_SECS: u64 = 24 * 3600;
/// Used NEW_TOKEN tokens that are remembered, in each of two generations. With both full, tokens are taken for used.
const REPLAY_ENTRIES_MAX: usize = 1 << 16;
const KIND_RETRY: u8 = 0x52;
const KIND_NEW: u8 = 0x4e;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Kind, nonce, time, address and port, two connection IDs with their lengths, tag.
const TOKEN_LEN_MAX: usize = 1 + NONCE_LEN + 8 + 1 + 16 + 2 + 2 * 21 + TAG_LEN;

/// What a valid token proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Token {
    /// The client has answered our Retry.
    Retry {
        /// The connection ID of the Initial that the Retry answered.
        original_dcid: ConnectionId,
    },
    /// The client was at this address on an earlier connection. The token serves once: see [`TokenKeys::redeem`].
    NewToken {
        /// Which token it is.
        id: TokenId,
    },
}

/// Tells tokens apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenId([u8; NONCE_LEN]);

/// Why a token that claims to be of our Retry is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// It was not sealed by us, or for another version, or was changed.
    NotAuthentic,
    /// It is too old.
    Expired,
    /// It was given to another address, or for another connection ID.
    OtherClient,
}

/// Seals and opens tokens.
pub struct TokenKeys {
    /// The first one seals, all of them open.
    secrets: Vec<hmac::Key>,
    /// Keys of two days at most of each secret, with its place and the day.
    keys: Vec<((usize, u64), LessSafeKey)>,
    used: [HashSet<[u8; NONCE_LEN]>; 2],
    /// The day in which `used[0]` is filled.
    used_day: u64,
}

impl TokenKeys {
    /// From a secret.
    pub fn new(secret: [u8; 32]) -> Self {
        TokenKeys {
            secrets: vec![hmac::Key::new(hmac::HMAC_SHA256, &secret)],
            keys: Vec::new(),
            used: Default::default(),
            used_day: 0,
        }
    }

    /// From now on, the first of these secrets seals, and all of them open. There must be one at least.
    pub fn set_secrets(&mut self, secrets: &[[u8; 32]]) {
        assert!(!secrets.is_empty(), "tokens are sealed with some secret");
        self.secrets = secrets
            .iter()
            .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret))
            .collect();
        self.keys.clear();
    }

    /// A token for a Retry packet of `version` with source connection ID `retry_scid` to `remote`, at calendar time `now_secs`.
    pub fn seal_retry(
        &mut self,
        now_secs: u64,
        version: Version,
        remote: SocketAddr,
        original_dcid: &ConnectionId,
        retry_scid: &ConnectionId,
    ) -> Vec<u8> {
        self.seal(Kind(KIND_RETRY, version), now_secs, |w| {
            write_ip(w, remote.ip());
            w.u16(remote.port());
            for cid in [original_dcid, retry_scid] {
                w.u8(cid.len() as u8);
                w.bytes(cid.as_bytes());
            }
        })
    }

    /// A token for a NEW_TOKEN frame to a client at `remote`, on a connection that has negotiated `version`.
    pub fn seal_new_token(&mut self, now_secs: u64, version: Version, remote: IpAddr) -> Vec<u8> {
        self.seal(Kind(KIND_NEW, version), now_secs, |w| write_ip(w, remote))
    }

    /// Opens the token of an Initial of `version` that was sent to `dcid`. `Ok(None)`: there is none, or none that
    /// counts (RFC 9000 section 8.1.3). An error: a Retry token that is not valid.
    ///
    /// # Errors
    ///
    /// A Retry token that is not valid: the connection is refused with INVALID_TOKEN (RFC 9000 section 8.1.2).
    pub fn open(
        &mut self,
        now_secs: u64,
        version: Version,
        remote: SocketAddr,
        token: &[u8],
        dcid: &ConnectionId,
    ) -> Result<Option<Token>, TokenError> {
        match token.first() {
            Some(&KIND_RETRY) => self.open_retry(now_secs, version, remote, token, dcid).map(Some),
            Some(&KIND_NEW) => Ok(self.open_new(now_secs, version, remote.ip(), token)),
            _ => Ok(None),
        }
    }

    fn open_retry(
        &mut self,
        now_secs: u64,
        version: Version,
        remote: SocketAddr,
        token: &[u8],
        dcid: &ConnectionId,
    ) -> Result<Token, TokenError> {
        let (_, plain) = self
            .unseal(now_secs, version, token)
            .ok_or(TokenError::NotAuthentic)?;
        let mut r = Reader::new(&plain);
        let mut read = || -> Result<_, UnexpectedEnd> {
            let issued = u64::from_be_bytes(r.array()?);
            let address = SocketAddr::new(read_ip(&mut r)?, r.u16()?);
            let mut cid = || -> Result<_, UnexpectedEnd> {
                let len = usize::from(r.u8()?);
                ConnectionId::new(r.bytes(len)?).ok_or(UnexpectedEnd)
            };
            Ok((issued, address, cid()?, cid()?))
        };
        let (issued, address, original_dcid, retry_scid) = read().map_err(|_| TokenError::NotAuthentic)?;
        if now_secs.abs_diff(issued) > RETRY_LIFETIME_SECS {
            return Err(TokenError::Expired);
        }
        // Not the scope of a link-local address, which is the host's own number of an interface, nor a flow label.
        let same = (address.ip(), address.port()) == (remote.ip(), remote.port());
        if !same || retry_scid != *dcid {
            return Err(TokenError::OtherClient);
        }
        Ok(Token::Retry { original_dcid })
    }

    fn open_new(&mut self, now_secs: u64, version: Version, remote: IpAddr, token: &[u8]) -> Option<Token> {
        let (nonce, plain) = self.unseal(now_secs, version, token)?;
        let mut r = Reader::new(&plain);
        let issued = u64::from_be_bytes(r.array().ok()?);
        let address = read_ip(&mut r).ok()?;
        let fresh = now_secs.abs_diff(issued) <= NEW_TOKEN_LIFETIME_SECS;
        (fresh && address == remote && self.is_unused(now_secs, &nonce))
            .then_some(Token::NewToken { id: TokenId(nonce) })
    }

    /// False if a token was used before, or if nothing more can be remembered (RFC 9000 section 8.1.4).
    fn is_unused(&mut self, now_secs: u64, nonce: &[u8; NONCE_LEN]) -> bool {
        let day = now_secs / NEW_TOKEN_LIFETIME_SECS;
        if day != self.used_day {
            // A token lives at most into the day after it was issued: the generation before the last one is not needed.
            self.used.swap(0, 1);
            let old = mem::take(&mut self.used[0]);
            if day != self.used_day + 1 {
                self.used[1].clear();
            }
            drop(old);
            self.used_day = day;
        }
        let known = self.used.iter().any(|used| used.contains(nonce));
        !known && self.used[0].len() < REPLAY_ENTRIES_MAX
    }

    /// Remembers that a token of a NEW_TOKEN frame was used, for a connection that was made: with a packet that was dropped it may come again.
    pub fn redeem(&mut self, now_secs: u64, id: TokenId) {
        if self.is_unused(now_secs, &id.0) {
            self.used[0].insert(id.0);
        }
    }

    fn seal(&mut self, kind: Kind, now_secs: u64, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut buf = [0; TOKEN_LEN_MAX];
        let mut writer = Writer::new(&mut buf);
        writer.bytes(&now_secs.to_be_bytes());
        write(&mut writer);
        let len = writer.len();
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).expect("the random generator of the system works");
        let key = self.key(0, now_secs / NEW_TOKEN_LIFETIME_SECS);
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(kind.authenticated()),
                &mut buf[..len],
            )
            .expect("a token is far shorter than the AEAD allows");
        [&[kind.0][..], &nonce, &buf[..len], tag.as_ref()].concat()
    }

    fn unseal(
        &mut self,
        now_secs: u64,
        version: Version,
        token: &[u8],
    ) -> Option<([u8; NONCE_LEN], Vec<u8>)> {
        if token.len() > TOKEN_LEN_MAX {
            return None;
        }
        let mut r = Reader::new(token);
        let kind = Kind(r.u8().ok()?, version);
        let nonce: [u8; NONCE_LEN] = r.array().ok()?;
        let day = now_secs / NEW_TOKEN_LIFETIME_SECS;
        let days = [day, day.saturating_sub(1)];
        let mut keys = (0..self.secrets.len()).flat_map(|secret| days.map(|day| (secret, day)));
        keys.find_map(|(secret, day)| {
            let mut sealed = r.as_slice().to_vec();
            let nonce_once = Nonce::assume_unique_for_key(nonce);
            let len = self
                .key(secret, day)
                .open_in_place(nonce_once, Aad::from(kind.authenticated()), &mut sealed)
                .ok()?
                .len();
            sealed.truncate(len);
            Some((nonce, sealed))
        })
    }

    fn key(&mut self, secret: usize, day: u64) -> &LessSafeKey {
        if let Some(index) = self.keys.iter().position(|(of, _)| *of == (secret, day)) {
            return &self.keys[index].1;
        }
        let bytes = hmac::sign(
            &self.secrets[secret],
            &[b"ringway token key", &day.to_be_bytes()[..]].concat(),
        );
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_ref()).expect("SHA-256 gives 32 bytes");
        // The oldest day of the secret makes room.
        let of_secret = |(of, _): &&((usize, u64), LessSafeKey)| of.0 == secret;
        if self.keys.iter().filter(of_secret).count() == 2 {
            let oldest = self.keys.iter().filter(of_secret).map(|(of, _)| *of).min();
            self.keys.retain(|(of, _)| Some(*of) != oldest);
        }
        self.keys.push(((secret, day), LessSafeKey::new(key)));
        &self.keys[self.keys.len() - 1].1
    }
}

/// The first byte of a token, and the version that it serves.
#[derive(Clone, Copy)]
struct Kind(u8, Version);

impl Kind {
    /// What a token is authenticated with, besides what it holds.
    fn authenticated(self) -> [u8; 5] {
        let [a, b, c, d] = self.1.number().to_be_bytes();
        [self.0, a, b, c, d]
    }
}

fn write_ip(w: &mut Writer<'_>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            w.u8(4);
            w.bytes(&ip.octets());
        }
        IpAddr::V6(ip) => {
            w.u8(6);
            w.bytes(&ip.octets());
        }
    }
}

fn read_ip(r: &mut Reader<'_>) -> Result<IpAddr, UnexpectedEnd> {
    match r.u8()? {
        4 => Ok(IpAddr::from(r.array::<4>()?)),
        _ => Ok(IpAddr::from(r.array::<16>()?)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const V: Version = Version::V1;

    fn cid(byte: u8) -> ConnectionId {
        ConnectionId::new(&[byte; 8]).unwrap()
    }

    fn remote() -> SocketAddr {
        "192.0.2.1:1234".parse().unwrap()
    }

    #[test]
    fn retry_token_serves_its_address_and_connection_id_for_a_short_time() {
        let mut keys = TokenKeys::new([1; 32]);
        let token = keys.seal_retry(NOW, V, remote(), &cid(1), &cid(2));
        let valid = Ok(Some(Token::Retry {
            original_dcid: cid(1),
        }));
        assert_eq!(keys.open(NOW + 15, V, remote(), &token, &cid(2)), valid);
        assert_eq!(
            keys.open(NOW + 16, V, remote(), &token, &cid(2)),
            Err(TokenError::Expired)
        );
        assert_eq!(
            keys.open(NOW, V, remote(), &token, &cid(3)),
            Err(TokenError::OtherClient)
        );
        let other: SocketAddr = "192.0.2.1:1235".parse().unwrap();
        assert_eq!(
            keys.open(NOW, V, other, &token, &cid(2)),
            Err(TokenError::OtherClient)
        );
        // Another server with the same secret understands it, one with another does not.
        assert_eq!(
            TokenKeys::new([1; 32]).open(NOW, V, remote(), &token, &cid(2)),
            valid
        );
        let foreign = TokenKeys::new([2; 32]).open(NOW, V, remote(), &token, &cid(2));
        assert_eq!(foreign, Err(TokenError::NotAuthentic));
    }

    #[test]
    fn retry_token_serves_a_link_local_address_whatever_its_scope_and_flow_label() {
        let mut keys = TokenKeys::new([1; 32]);
        let remote = |flow, scope| -> SocketAddr {
            SocketAddrV6::new("fe80::1".parse().unwrap(), 1234, flow, scope).into()
        };
        let token = keys.seal_retry(NOW, V, remote(0, 2), &cid(1), &cid(2));
        for seen in [remote(0, 2), remote(7, 0)] {
            assert!(matches!(
                keys.open(NOW, Version::V1, seen, &token, &cid(2)),
                Ok(Some(Token::Retry { .. }))
            ));
        }
    }

    #[test]
    fn token_changed_or_cut_anywhere_is_refused() {
        let mut keys = TokenKeys::new([1; 32]);
        let token = keys.seal_retry(NOW, V, remote(), &cid(1), &cid(2));
        for at in 1..token.len() {
            let mut changed = token.clone();
            changed[at] ^= 0x10;
            assert_eq!(
                keys.open(NOW, V, remote(), &changed, &cid(2)),
                Err(TokenError::NotAuthentic)
            );
            assert_eq!(
                keys.open(NOW, V, remote(), &token[..at], &cid(2)),
                Err(TokenError::NotAuthentic)
            );
        }
    }

    fn is_new(opened: Result<Option<Token>, TokenError>) -> bool {
        matches!(opened, Ok(Some(Token::NewToken { .. })))
    }

    fn redeem(keys: &mut TokenKeys, now: u64, token: &[u8]) {
        match keys.open(now, V, remote(), token, &cid(9)) {
            Ok(Some(Token::NewToken { id })) => keys.redeem(now, id),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn new_token_is_good_once_and_for_one_address() {
        let mut keys = TokenKeys::new([1; 32]);
        let token = keys.seal_new_token(NOW, V, remote().ip());
        let elsewhere: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(keys.open(NOW, V, elsewhere, &token, &cid(9)), Ok(None));
        // Until it is redeemed: its packet may be dropped, and come again.
        for _ in 0..2 {
            assert!(is_new(keys.open(NOW, V, remote(), &token, &cid(9))));
        }
        redeem(&mut keys, NOW, &token);
        assert_eq!(keys.open(NOW, V, remote(), &token, &cid(9)), Ok(None));
        let token = keys.seal_new_token(NOW, V, remote().ip());
        assert_eq!(
            keys.open(NOW + 24 * 3600 + 1, V, remote(), &token, &cid(9)),
            Ok(None)
        );
        // Used on one day, tried again on the next.
        let late = NOW / 86400 * 86400 + 86399;
        let token = keys.seal_new_token(late, V, remote().ip());
        redeem(&mut keys, late, &token);
        assert_eq!(keys.open(late + 2, V, remote(), &token, &cid(9)), Ok(None));
    }

    #[test]
    fn token_of_another_version_proves_nothing() {
        let mut keys = TokenKeys::new([1; 32]);
        for (own, other) in [(Version::V1, Version::V2), (Version::V2, Version::V1)] {
            let token = keys.seal_new_token(NOW, own, remote().ip());
            assert_eq!(keys.open(NOW, other, remote(), &token, &cid(9)), Ok(None));
            let opened = keys.open(NOW, own, remote(), &token, &cid(9));
            assert!(is_new(opened));
            let token = keys.seal_retry(NOW, own, remote(), &cid(1), &cid(2));
            let opened = keys.open(NOW, other, remote(), &token, &cid(2));
            assert_eq!(opened, Err(TokenError::NotAuthentic));
        }
    }

    #[test]
    fn tokens_of_all_secrets_that_are_set_are_taken_and_the_first_seals() {
        let remote: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let dcid = ConnectionId::new(&[1; 8]).unwrap();
        let (old, new) = ([1; 32], [2; 32]);
        let now = 1_000_000;
        let mut one = TokenKeys::new(old);
        let token = one.seal_new_token(now, Version::V1, remote.ip());
        let opens = |keys: &mut TokenKeys, token: &[u8]| {
            let opened = keys.open(now, Version::V1, remote, token, &dcid);
            matches!(opened, Ok(Some(Token::NewToken { .. })))
        };
        let mut other = TokenKeys::new(new);
        assert!(!opens(&mut other, &token));
        other.set_secrets(&[new, old]);
        assert!(opens(&mut other, &token));
        let of_new = other.seal_new_token(now, Version::V1, remote.ip());
        assert!(!opens(&mut one, &of_new));
        one.set_secrets(&[old, new]);
        assert!(opens(&mut one, &of_new));
        other.set_secrets(&[new]);
        assert!(!opens(&mut other, &token) && opens(&mut other, &of_new));
    }

    #[test]
    fn garbage_counts_as_no_token() {
        let mut keys = TokenKeys::new([1; 32]);
        for token in [&b""[..], b"x", b"some other server's token", &[KIND_NEW; 40]] {
            assert_eq!(keys.open(NOW, V, remote(), token, &cid(9)), Ok(None));
        }
    }
}
