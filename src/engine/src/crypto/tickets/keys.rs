//! The keys that seal tickets.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;

use super::sealed::TAG_LEN;

/// A key that seals tickets. Whoever has it can read and forge tickets: keep it as a private key, and replace it often (RFC 9325 section 3.4), as the
/// secrecy of resumed sessions hangs on it.
#[derive(Clone)]
pub struct TicketKey {
    /// Tells keys apart; stands in each ticket as it is.
    pub id: [u8; 16],
    /// The key itself.
    pub material: [u8; 32],
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl TicketKey {
    /// A new one, at random.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn random() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut key = TicketKey {
            id: [0; 16],
            material: [0; 32],
        };
        rand::fill(&mut key.id)?;
        rand::fill(&mut key.material)?;
        Ok(key)
    }
}

/// The keys of a server's tickets, which any number of configurations, and servers of a fleet, may share. Clones are the same keys.
///
/// The first key seals; all of them open. To rotate keys in a fleet, [set](TicketKeys::set) on every server the new key behind the present one, then
/// on every server the new key before it, and when the last ticket of the old key has expired, the new key alone.
#[derive(Clone)]
pub struct TicketKeys(Arc<RwLock<Vec<Arc<Key>>>>);

struct Key {
    id: [u8; 16],
    aead: LessSafeKey,
}

/// What sealing adds: the number of the key, the nonce and the tag.
pub(super) const SEALED_LEN: usize = 16 + NONCE_LEN + TAG_LEN;

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TicketKeys").finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// These keys: the first one seals.
    pub fn new(keys: &[TicketKey]) -> Self {
        let new = TicketKeys(Arc::default());
        new.set(keys);
        new
    }

    /// Replaces the keys. From now on, the first of these seals, and all of these open. Without any, no ticket is given out or taken.
    pub fn set(&self, keys: &[TicketKey]) {
        let keys = keys.iter().map(|key| {
            let unbound = UnboundKey::new(&AES_256_GCM_SIV, &key.material).expect("the key has 32 bytes");
            Arc::new(Key {
                id: key.id,
                aead: LessSafeKey::new(unbound),
            })
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.collect();
    }

    /// Seals a ticket: ID, nonce, and the sealed text with its tag. `None` without a key or random numbers.
    pub(super) fn seal(&self, mut text: Vec<u8>, context: &[u8]) -> Option<Vec<u8>> {
        let key = {
            let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(keys.first()?)
        };
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let aad = Aad::from([&key.id, context].concat());
        // Nonces of many servers are random, and may meet: AES-GCM-SIV bears that (RFC 8452 section 1).
        let nonce_once = Nonce::assume_unique_for_key(nonce);
        key.aead
            .seal_in_place_append_tag(nonce_once, aad, &mut text)
            .ok()?;
        Some([&key.id[..], &nonce, &text].concat())
    }

    /// The text of a ticket that one of the keys has sealed in this context.
    pub(super) fn open(&self, ticket: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<16>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if sealed.len() < TAG_LEN {
            return None;
        }
        let key = {
            let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(keys.iter().find(|key| key.id == *id)?)
        };
        let mut text = sealed.to_vec();
        let aad = Aad::from([id, context].concat());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = key.aead.open_in_place(nonce, aad, &mut text).ok()?.len();
        text.truncate(len);
        Some(text)
    }
}
