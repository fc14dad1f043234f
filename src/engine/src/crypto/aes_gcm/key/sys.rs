//! The way into code for processors that have the instructions: it asks the processor first.

use std::arch::is_x86_feature_detected;

use crate::crypto::aes_gcm::nonce::Nonce;
use crate::crypto::aes_gcm::pass;
use crate::crypto::aes_gcm::schedule::Schedule;

/// What is derived of a key, for code that only processors with certain instructions run: there is none on others.
pub(super) enum Cipher {
    Aes128(Schedule<10>),
    Aes256(Schedule<14>),
}

impl Cipher {
    /// `None`: the processor cannot.
    pub(super) fn new(key: &[u8]) -> Option<Cipher> {
        let can = is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        if !can {
            return None;
        }
        Some(if key.len() == 16 {
            // SAFETY: the processor has all that the function is compiled for.
            Cipher::Aes128(unsafe { Schedule::new(key) })
        } else {
            // SAFETY: the processor has all that the function is compiled for.
            Cipher::Aes256(unsafe { Schedule::new(key) })
        })
    }

    /// See [`pass::seal`].
    #[inline]
    pub(super) fn seal(&self, nonce: Nonce, header: &[u8], packet: &mut [u8], tail: &[u8]) {
        match self {
            // SAFETY: there is a cipher, so `new` has found that the processor has all that the function is compiled for.
            Cipher::Aes128(schedule) => unsafe { pass::seal(schedule, nonce, header, packet, tail) },
            // SAFETY: there is a cipher, so `new` has found that the processor has all that the function is compiled for.
            Cipher::Aes256(schedule) => unsafe { pass::seal(schedule, nonce, header, packet, tail) },
        }
    }

    /// See [`pass::open`].
    #[inline]
    pub(super) fn open<'a>(
        &self,
        nonce: Nonce,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        match self {
            // SAFETY: there is a cipher, so `new` has found that the processor has all that the function is compiled for.
            Cipher::Aes128(schedule) => unsafe { pass::open(schedule, nonce, header, payload) },
            // SAFETY: there is a cipher, so `new` has found that the processor has all that the function is compiled for.
            Cipher::Aes256(schedule) => unsafe { pass::open(schedule, nonce, header, payload) },
        }
    }
}
