//! HKDF of the TLS key schedule (RFC 8446 section 7.1), on the hashes of RustCrypto.
//!
//! A handshake expands some forty keys from a dozen secrets. aws-lc-rs hashes the secret anew for each of them and takes a context from the
//! heap each time; here a secret is hashed once, into a state that each expansion copies. That takes 6 of 80 µs off a server's handshake.
//!
//! Labels of packet keys are those of the version that is in use, whichever a TLS session was made for: see [`with_labels_of`].

use std::cell::Cell;
use std::sync::{LazyLock, OnceLock};

use hkdf::hmac::Hmac;
use hkdf::{GenericHkdf, HmacImpl};
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use sha2::{Sha256, Sha384};

use super::{is_fips, ticket_secret};
use crate::wire::Version;

/// With SHA-256.
pub(super) static SHA256: HkdfOf<Hmac<Sha256>> = HkdfOf {
    zero: OnceLock::new(),
};
/// With SHA-384.
pub(super) static SHA384: HkdfOf<Hmac<Sha384>> = HkdfOf {
    zero: OnceLock::new(),
};

/// Those of this build: where aws-lc is its FIPS module, that does all cryptography.
pub(super) fn sha256() -> &'static dyn Hkdf {
    static OF_MODULE: LazyLock<OfModule> = LazyLock::new(|| OfModule::of(TLS13_AES_128_GCM_SHA256));
    if is_fips() { &*OF_MODULE } else { &SHA256 }
}

/// As [`sha256`].
pub(super) fn sha384() -> &'static dyn Hkdf {
    static OF_MODULE: LazyLock<OfModule> = LazyLock::new(|| OfModule::of(TLS13_AES_256_GCM_SHA384));
    if is_fips() { &*OF_MODULE } else { &SHA384 }
}

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

pub(super) fn expand<M: HmacImpl>(
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
        relabelled(info, |info| expand(self.hkdf(), info, output))
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        block(info, |info| expand_block(self.hkdf(), info))
    }

    fn hash_len(&self) -> usize {
        M::output_size()
    }
}

/// HKDF of aws-lc, with the labels of the version that is in use.
struct OfModule(&'static dyn Hkdf);

impl OfModule {
    fn of(suite: SupportedCipherSuite) -> OfModule {
        OfModule(suite.tls13().expect("the suite is one of TLS 1.3").hkdf_provider)
    }
}

impl Hkdf for OfModule {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.0.extract_from_zero_ikm(salt)
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.0.extract_from_secret(salt, secret)
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(TrafficOfModule(self.0.expander_for_okm(okm)))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        self.0.hmac_sign(key, message)
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

struct TrafficOfModule(Box<dyn HkdfExpander>);

impl HkdfExpander for TrafficOfModule {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        relabelled(info, |info| self.0.expand_slice(info, output))
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        block(info, |info| self.0.expand_block(info))
    }

    fn hash_len(&self) -> usize {
        self.0.hash_len()
    }
}

/// Labels of the keys of TLS records (RFC 8446 section 7.3), and where rustls has the label in its list: behind two lengths and the prefix of
/// all labels. Those of QUIC are others (RFC 9001 section 5.1).
const RECORD_LABELS: [&[u8]; 2] = [b"key", b"iv"];
const LABEL: usize = 3;

thread_local! {
    /// The version whose labels are to be used, while [`with_labels_of`] runs.
    static LABELS_OF: Cell<Option<Version>> = const { Cell::new(None) };
}

/// Runs `derive`, in which rustls expands packet keys or the secrets of a key update: with the labels of `version` (RFC 9369 section 3.3.2).
///
/// rustls takes the labels of the version that its session was made for. A client makes the session with its first flight, and hears of another
/// version only with the answer (RFC 9368 section 2.3); the secrets are the same for all versions, and only the labels differ.
pub(super) fn with_labels_of<R>(version: Version, derive: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also if a panic passes.
    struct Restore(Option<Version>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LABELS_OF.set(self.0);
        }
    }
    let _restore = Restore(LABELS_OF.replace(Some(version)));
    derive()
}

/// Calls `expand` with what is to be hashed, in which a label of QUIC is the one of the version that [`with_labels_of`] was told.
fn relabelled<R>(info: &[&[u8]], expand: impl FnOnce(&[&[u8]]) -> R) -> R {
    if let Some(version) = LABELS_OF.get()
        && let &[output_len, _, prefix, label, context_len, context] = info
        && let Some(labels) = QUIC_LABELS.iter().find(|labels| labels.contains(&label))
    {
        let label = match version {
            Version::V1 => labels[0],
            Version::V2 => labels[1],
        };
        let label_len = [(prefix.len() + label.len()) as u8];
        return expand(&[output_len, &label_len, prefix, label, context_len, context]);
    }
    expand(info)
}

/// A secret that is expanded from another one: `expand` is called with what is to be hashed. That of a ticket may leave the process with it.
fn block(info: &[&[u8]], expand: impl FnOnce(&[&[u8]]) -> OkmBlock) -> OkmBlock {
    if info.get(LABEL).is_some_and(|label| *label == TICKET_LABEL) {
        return ticket_secret::of_ticket(|| expand(info));
    }
    relabelled(info, expand)
}

/// The label of the secret of a ticket (RFC 8446 section 4.6.1).
const TICKET_LABEL: &[u8] = b"resumption";

/// Labels of packet keys and of key updates in versions 1 and 2 (RFC 9001 sections 5.1 and 6.1, RFC 9369 section 3.3.2).
pub(super) const QUIC_LABELS: [[&[u8]; 2]; 4] = [
    [b"quic key", b"quicv2 key"],
    [b"quic iv", b"quicv2 iv"],
    [b"quic hp", b"quicv2 hp"],
    [b"quic ku", b"quicv2 ku"],
];

#[cfg(test)]
mod tests {
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
            assert_eq!(all(&OfModule::of(suite)), all(theirs));
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
    fn labels_are_those_of_the_version_in_use_whichever_is_asked_for() {
        let of_module = OfModule::of(TLS13_AES_128_GCM_SHA256);
        labels_are_those_of_the_version(&*of_module.expander_for_okm(&OkmBlock::new(&[7; 32])));
        labels_are_those_of_the_version(&*SHA256.expander_for_okm(&OkmBlock::new(&[7; 32])));
    }

    fn labels_are_those_of_the_version(expander: &dyn HkdfExpander) {
        let expand = |label: &[u8]| {
            let mut output = [0; 12];
            let label_len = [b"tls13 ".len() as u8 + label.len() as u8];
            let info: [&[u8]; 6] = [&[0, 12], &label_len, b"tls13 ", label, &[0], &[]];
            expander.expand_slice(&info, &mut output).unwrap();
            (output, expander.expand_block(&info).as_ref().to_vec())
        };
        for [v1, v2] in QUIC_LABELS {
            let own = [expand(v1), expand(v2)];
            assert_ne!(own[0], own[1]);
            for (version, right) in Version::SUPPORTED.into_iter().zip(&own) {
                for asked in [v1, v2] {
                    assert_eq!(with_labels_of(version, || expand(asked)), *right);
                }
            }
        }
        let other = expand(b"c hs traffic");
        assert_eq!(with_labels_of(Version::V2, || expand(b"c hs traffic")), other);
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
