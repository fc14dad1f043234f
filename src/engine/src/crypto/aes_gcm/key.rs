//! A packet key.

use super::form::Form;
use super::nonce::Nonce;
use super::pass::{Open, Seal};
use super::schedule::Schedule;
#[cfg(target_arch = "aarch64")]
use super::vectors::Neon;
#[cfg(target_arch = "x86_64")]
use super::vectors::{AesNi, Avx512, Vaes256};
use super::vectors::{Task, Vectors};
use crate::crypto::suite::IV_LEN;

/// A packet key of AEAD_AES_128_GCM or AEAD_AES_256_GCM, and its IV.
pub struct AesGcm {
    cipher: Cipher,
    iv: Nonce,
}

/// A key for one form. There are as many vectors in a chunk as keep the cipher at work and fit into registers, of which there are 32 or 16.
enum Cipher {
    #[cfg(target_arch = "x86_64")]
    Avx512(Key<Avx512, 4>),
    #[cfg(target_arch = "x86_64")]
    Vaes256(Key<Vaes256, 8>),
    #[cfg(target_arch = "x86_64")]
    AesNi(Key<AesNi, 8>),
    #[cfg(target_arch = "aarch64")]
    Neon(Key<Neon, 8>),
}

enum Key<V: Vectors, const N: usize> {
    Aes128(Schedule<V, N, 10>),
    Aes256(Schedule<V, N, 14>),
}

impl AesGcm {
    /// With a key of 16 or 32 bytes. `None`: this processor, or this build, does not have the form.
    pub fn new(form: Form, key: &[u8], iv: [u8; IV_LEN]) -> Option<AesGcm> {
        let cipher = match form {
            #[cfg(target_arch = "x86_64")]
            Form::Avx512 => Cipher::Avx512(Key::new(key)?),
            #[cfg(target_arch = "x86_64")]
            Form::Vaes256 => Cipher::Vaes256(Key::new(key)?),
            #[cfg(target_arch = "x86_64")]
            Form::AesNi => Cipher::AesNi(Key::new(key)?),
            #[cfg(target_arch = "aarch64")]
            Form::Neon => Cipher::Neon(Key::new(key)?),
            #[allow(unreachable_patterns, reason = "of other processors")]
            _ => return None,
        };
        let iv = Nonce::of_iv(iv);
        Some(AesGcm { cipher, iv })
    }

    /// Seals what is in place at the start of `packet`, and `tail` behind it. `packet` has room for both and the tag, and no more.
    #[inline]
    pub fn seal(&self, number: u64, header: &[u8], packet: &mut [u8], tail: &[u8]) {
        match self.cipher {
            #[cfg(target_arch = "x86_64")]
            Cipher::Avx512(ref key) => key.seal(&self.iv, number, header, packet, tail),
            #[cfg(target_arch = "x86_64")]
            Cipher::Vaes256(ref key) => key.seal(&self.iv, number, header, packet, tail),
            #[cfg(target_arch = "x86_64")]
            Cipher::AesNi(ref key) => key.seal(&self.iv, number, header, packet, tail),
            #[cfg(target_arch = "aarch64")]
            Cipher::Neon(ref key) => key.seal(&self.iv, number, header, packet, tail),
        }
    }

    /// Opens a packet in place and gives the plaintext; `payload` is the ciphertext and the tag. `None`: it is not authentic, and zeros are in
    /// its place.
    #[inline]
    pub fn open<'a>(&self, number: u64, header: &[u8], payload: &'a mut [u8]) -> Option<&'a mut [u8]> {
        match self.cipher {
            #[cfg(target_arch = "x86_64")]
            Cipher::Avx512(ref key) => key.open(&self.iv, number, header, payload),
            #[cfg(target_arch = "x86_64")]
            Cipher::Vaes256(ref key) => key.open(&self.iv, number, header, payload),
            #[cfg(target_arch = "x86_64")]
            Cipher::AesNi(ref key) => key.open(&self.iv, number, header, payload),
            #[cfg(target_arch = "aarch64")]
            Cipher::Neon(ref key) => key.open(&self.iv, number, header, payload),
        }
    }
}

impl<V: Vectors, const N: usize> Key<V, N> {
    /// `None`: the processor does not have the instructions.
    fn new(key: &[u8]) -> Option<Self> {
        let vectors = V::detect()?;
        Some(if key.len() == 16 {
            Key::Aes128(vectors.enter(Derive { vectors, key }))
        } else {
            Key::Aes256(vectors.enter(Derive { vectors, key }))
        })
    }

    #[inline]
    fn seal(&self, iv: &Nonce, number: u64, header: &[u8], packet: &mut [u8], tail: &[u8]) {
        match self {
            Key::Aes128(schedule) => schedule.vectors.enter(Seal {
                schedule,
                iv,
                number,
                header,
                packet,
                tail,
            }),
            Key::Aes256(schedule) => schedule.vectors.enter(Seal {
                schedule,
                iv,
                number,
                header,
                packet,
                tail,
            }),
        }
    }

    #[inline]
    fn open<'a>(
        &self,
        iv: &Nonce,
        number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        match self {
            Key::Aes128(schedule) => schedule.vectors.enter(Open {
                schedule,
                iv,
                number,
                header,
                payload,
            }),
            Key::Aes256(schedule) => schedule.vectors.enter(Open {
                schedule,
                iv,
                number,
                header,
                payload,
            }),
        }
    }
}

/// Derives what a key of the cipher gives.
struct Derive<'a, V> {
    vectors: V,
    key: &'a [u8],
}

impl<V: Vectors, const N: usize, const ROUNDS: usize> Task<Schedule<V, N, ROUNDS>> for Derive<'_, V> {
    #[inline(always)]
    fn run(self) -> Schedule<V, N, ROUNDS> {
        Schedule::new(self.vectors, self.key)
    }
}
