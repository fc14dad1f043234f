//! HKDF of the TLS key schedule (RFC 8446 section 7.1), on the hashes of RustCrypto.
//!
//! A handshake expands some forty keys from a dozen secrets. aws-lc-rs hashes the secret anew for each of them and takes a context from the
//! heap each time; here a secret is hashed once, into a state that each expansion copies. That takes 6 of 80 µs off a server's handshake.

use std::sync::OnceLock;

use hkdf::hmac::Hmac;
use hkdf::{GenericHkdf, HmacImpl};
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use sha2::{Sha256, Sha384};

/// With SHA-256.
pub(super) static SHA256: HkdfOf<Hmac<Sha256>> = HkdfOf {
    zero: OnceLock::new(),
};
/// With SHA-384.
pub(super) static SHA384: HkdfOf<Hmac<Sha384>> = HkdfOf {
    zero: OnceLock::new(),
};

/// HKDF with one hash.
pub(super) struct HkdfOf<M: HmacImpl> {
    /// What is extracted from zeros without a salt: every key schedule without a PSK begins with it.
    zero: OnceLock<GenericHkdf<M>>,
}

impl<M: HmacImpl + Send + Sync + 'static> Hkdf for HkdfOf<M> {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        let extract = |salt| GenericHkdf::new(salt, &[0; OkmBlock::MAX_LEN][..M::output_size()]);
        let hkdf = match salt {
            None => self.zero.get_or_init(|| extract(None)).clone(),
            Some(salt) => extract(Some(salt)),
        };
        Box::new(Extracted(hkdf))
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Box::new(Extracted(GenericHkdf::<M>::new(salt, secret)))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Traffic {
            secret: okm.clone(),
            hkdf: OnceLock::<GenericHkdf<M>>::new(),
        })
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        let mut mac = M::new_from_slice(key.as_ref());
        mac.update(message);
        Tag::new(&mac.finalize())
    }
}

fn expand<M: HmacImpl>(
    hkdf: &GenericHkdf<M>,
    info: &[&[u8]],
    output: &mut [u8],
) -> Result<(), OutputLengthError> {
    hkdf.expand_multi_info(info, output)
        .map_err(|_| OutputLengthError)
}

fn expand_block<M: HmacImpl>(hkdf: &GenericHkdf<M>, info: &[&[u8]]) -> OkmBlock {
    let mut block = [0; OkmBlock::MAX_LEN];
    let block = &mut block[..M::output_size()];
    expand(hkdf, info, block).expect("a block is as long as the hash");
    OkmBlock::new(block)
}

/// Expands what was extracted.
struct Extracted<M: HmacImpl>(GenericHkdf<M>);

impl<M: HmacImpl + Send + Sync> HkdfExpander for Extracted<M> {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        expand(&self.0, info, output)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        expand_block(&self.0, info)
    }

    fn hash_len(&self) -> usize {
        M::output_size()
    }
}

/// Expands a secret that was expanded itself: traffic secrets, most of all.
struct Traffic<M: HmacImpl> {
    secret: OkmBlock,
    /// Hashed when it is needed: rustls makes expanders for TLS records, of which QUIC has none.
    hkdf: OnceLock<GenericHkdf<M>>,
}

impl<M: HmacImpl> Traffic<M> {
    fn hkdf(&self) -> &GenericHkdf<M> {
        self.hkdf.get_or_init(|| {
            GenericHkdf::from_prk(self.secret.as_ref()).expect("a block is as long as the hash")
        })
    }
}

impl<M: HmacImpl + Send + Sync> HkdfExpander for Traffic<M> {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if info.get(LABEL).is_some_and(|label| RECORD_LABELS.contains(label)) {
            // Keys of TLS records: they protect nothing in QUIC (RFC 9001 section 4), see `suite::NoRecords`.
            output.fill(0);
            return Ok(());
        }
        expand(self.hkdf(), info, output)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        expand_block(self.hkdf(), info)
    }

    fn hash_len(&self) -> usize {
        M::output_size()
    }
}

/// Labels of the keys of TLS records (RFC 8446 section 7.3), and where rustls has the label in its list: behind two lengths and the prefix of
/// all labels. Those of QUIC are others (RFC 9001 section 5.1).
const RECORD_LABELS: [&[u8]; 2] = [b"key", b"iv"];
const LABEL: usize = 3;

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};

    use super::*;

    #[test]
    fn keys_are_those_that_another_library_derives() {
        for (ours, suite) in [
            (&SHA256 as &dyn Hkdf, TLS13_AES_128_GCM_SHA256),
            (&SHA384, TLS13_AES_256_GCM_SHA384),
        ] {
            let theirs = suite.tls13().unwrap().hkdf_provider;
            let all = |hkdf: &dyn Hkdf| {
                let mut slice = [0; 123];
                let from_zero = hkdf.extract_from_zero_ikm(None).expand_block(&[b"a", b"bc"]);
                let from_secret = hkdf
                    .extract_from_secret(Some(b"salt"), b"secret")
                    .expand_block(&[]);
                hkdf.expander_for_okm(&from_zero)
                    .expand_slice(&[b"label"], &mut slice)
                    .unwrap();
                let signed = hkdf.hmac_sign(&from_secret, b"message");
                let blocks = [from_zero, from_secret].map(|block| block.as_ref().to_vec());
                (
                    blocks,
                    slice,
                    signed.as_ref().to_vec(),
                    hkdf.expander_for_okm(&OkmBlock::new(&[1; 48])).hash_len(),
                )
            };
            assert_eq!(all(ours), all(theirs));
        }
        let too_long = &mut [0; 255 * 32 + 1];
        assert!(
            SHA256
                .extract_from_zero_ikm(None)
                .expand_slice(&[], too_long)
                .is_err()
        );
    }

    #[test]
    fn keys_of_tls_records_are_not_derived_and_those_of_quic_are() {
        let expander = SHA256.expander_for_okm(&OkmBlock::new(&[7; 32]));
        let expand = |label: &[u8]| {
            let mut output = [9; 12];
            let label_len = [b"tls13 ".len() as u8 + label.len() as u8];
            expander
                .expand_slice(&[&[0, 12], &label_len, b"tls13 ", label, &[0], &[]], &mut output)
                .unwrap();
            output
        };
        assert_eq!([expand(b"key"), expand(b"iv")], [[0; 12]; 2]);
        assert!(
            [expand(b"quic key"), expand(b"quic iv"), expand(b"quic hp")]
                .iter()
                .all(|key| *key != [0; 12])
        );
    }
}
