//! A packet key.

#[allow(
    unsafe_code,
    reason = "the way into code for processors that have the instructions"
)]
mod sys;

use self::sys::Cipher;
use super::nonce::Nonce;
use crate::crypto::suite::IV_LEN;

/// A packet key of AEAD_AES_128_GCM or AEAD_AES_256_GCM, and its IV.
pub(in crate::crypto) struct AesGcm {
    cipher: Cipher,
    iv: Nonce,
}

impl AesGcm {
    /// With a key of 16 or 32 bytes. `None`: this processor does not have the instructions.
    pub(in crate::crypto) fn new(key: &[u8], iv: [u8; IV_LEN]) -> Option<AesGcm> {
        let iv = Nonce::of_iv(iv);
        Cipher::new(key).map(|cipher| AesGcm { cipher, iv })
    }

    /// Seals what is in place at the start of `packet`, and `tail` behind it. `packet` has room for both and the tag, and no more.
    #[inline]
    pub(in crate::crypto) fn seal(&self, number: u64, header: &[u8], packet: &mut [u8], tail: &[u8]) {
        self.cipher.seal(self.iv.of_packet(number), header, packet, tail);
    }

    /// Opens a packet in place and gives the plaintext; `payload` is the ciphertext and the tag. `None`: it is not authentic, and zeros are in
    /// its place.
    #[inline]
    pub(in crate::crypto) fn open<'a>(
        &self,
        number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.cipher.open(self.iv.of_packet(number), header, payload)
    }
}
