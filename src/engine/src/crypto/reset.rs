//! Stateless reset tokens (RFC 9000 section 10.3.2).

use aws_lc_rs::hmac;

use crate::wire::cid::ResetToken;

/// The static key from which the reset token of every connection ID follows, so that a server which has lost
/// its connections can still reset them.
pub struct ResetKey(hmac::Key);

impl ResetKey {
    /// From a secret.
    pub fn new(secret: [u8; 32]) -> Self {
        ResetKey(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// The token of a connection ID.
    pub fn token(&self, cid: &[u8]) -> ResetToken {
        let tag = hmac::sign(&self.0, cid);
        ResetToken(*tag.as_ref().first_chunk().expect("SHA-256 gives 32 bytes"))
    }
}
