//! Secrets of the key schedule that we have ourselves, and what is derived from them.

use hkdf::GenericHkdf;
use hkdf::hmac::Hmac;
use rustls::crypto::tls13::OkmBlock;
use sha2::{Digest, Sha256, Sha384};

use super::hkdf::{QUIC_LABELS, expand};
use super::suite::CipherSuite;
use crate::wire::Version;

/// A secret that was hashed once, from which labelled keys are expanded (HKDF-Expand-Label, RFC 8446 section 7.1).
pub(super) enum Secret {
    Sha256(GenericHkdf<Hmac<Sha256>>),
    Sha384(GenericHkdf<Hmac<Sha384>>),
}

impl Secret {
    /// One of a session with this suite. `None`: it does not have the length of the suite's hash.
    pub(super) fn new(suite: CipherSuite, secret: &[u8]) -> Option<Self> {
        match suite {
            CipherSuite::Aes128Gcm | CipherSuite::ChaCha20Poly1305 => {
                GenericHkdf::from_prk(secret).ok().map(Secret::Sha256)
            }
            CipherSuite::Aes256Gcm => GenericHkdf::from_prk(secret).ok().map(Secret::Sha384),
        }
    }

    /// Fills `out` with the key for this label and context. False: it is longer than the hash allows, or the label or the context is.
    pub(super) fn expand_label(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> bool {
        let (Ok(out_len), Ok(label_len), Ok(context_len)) = (
            u16::try_from(out.len()),
            u8::try_from(LABEL_PREFIX.len() + label.len()),
            u8::try_from(context.len()),
        ) else {
            return false;
        };
        let info: [&[u8]; 6] = [
            &out_len.to_be_bytes(),
            &[label_len],
            LABEL_PREFIX,
            label,
            &[context_len],
            context,
        ];
        match self {
            Secret::Sha256(hkdf) => expand(hkdf, &info, out),
            Secret::Sha384(hkdf) => expand(hkdf, &info, out),
        }
        .is_ok()
    }

    /// The secret for this label that is as long as the hash.
    pub(super) fn expand_secret(&self, label: &[u8], context: &[u8]) -> OkmBlock {
        let mut block = [0; OkmBlock::MAX_LEN];
        let block = &mut block[..self.hash_len()];
        let expanded = self.expand_label(label, context, block);
        debug_assert!(expanded, "a block is as long as the hash");
        OkmBlock::new(block)
    }

    /// The hash of the suite over `data`.
    pub(super) fn hash(&self, data: &[u8]) -> Vec<u8> {
        match self {
            Secret::Sha256(_) => Sha256::digest(data).to_vec(),
            Secret::Sha384(_) => Sha384::digest(data).to_vec(),
        }
    }

    fn hash_len(&self) -> usize {
        match self {
            Secret::Sha256(_) => <Sha256 as Digest>::output_size(),
            Secret::Sha384(_) => <Sha384 as Digest>::output_size(),
        }
    }
}

/// What all labels of TLS 1.3 begin with.
const LABEL_PREFIX: &[u8] = b"tls13 ";

/// What is expanded for packets from a traffic secret: an index into [`QUIC_LABELS`].
#[derive(Clone, Copy)]
pub(super) enum PacketLabel {
    Key,
    Iv,
    HeaderProtection,
    KeyUpdate,
}

impl PacketLabel {
    /// Its label in this version.
    pub(super) fn of(self, version: Version) -> &'static [u8] {
        let labels = QUIC_LABELS[self as usize];
        match version {
            Version::V1 => labels[0],
            Version::V2 => labels[1],
        }
    }
}
