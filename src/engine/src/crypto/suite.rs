//! Cipher suites whose packet keys come out of rustls as raw bytes.
//!
//! rustls hands QUIC keys out as boxed trait objects that seal one packet in place, which rules out sealing from
//! application memory. But it lets the maker of a cipher suite say how such an object is built. Our suites build a
//! `KeyCarrier`: it is no cipher, it carries the bytes of the key through the trait object and gives them to
//! `keys`. rustls itself never protects QUIC packets, so nothing else calls it.

use std::sync::LazyLock;

use aws_lc_rs::aead;
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::tls13::Hkdf;
use rustls::quic::{self, Algorithm, Tag};
use rustls::{ConnectionTrafficSecrets, SupportedCipherSuite, Tls13CipherSuite};
use zeroize::zeroize_bytes;

use super::{hkdf, is_fips};

/// A TLS 1.3 cipher suite.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CipherSuite {
    /// TLS_AES_128_GCM_SHA256.
    Aes128Gcm,
    /// TLS_AES_256_GCM_SHA384.
    Aes256Gcm,
    /// TLS_CHACHA20_POLY1305_SHA256. About four times as costly as AES on processors with AES instructions.
    ChaCha20Poly1305,
}

impl CipherSuite {
    /// All suites, cheapest first.
    pub const ALL: [CipherSuite; 3] = [
        CipherSuite::Aes128Gcm,
        CipherSuite::Aes256Gcm,
        CipherSuite::ChaCha20Poly1305,
    ];

    /// What protects packets.
    pub const fn cipher(self) -> &'static str {
        match self {
            CipherSuite::Aes128Gcm => "AES-128-GCM",
            CipherSuite::Aes256Gcm => "AES-256-GCM",
            CipherSuite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }

    /// Bits of its keys.
    pub const fn key_bits(self) -> u16 {
        match self {
            CipherSuite::Aes128Gcm => 128,
            CipherSuite::Aes256Gcm | CipherSuite::ChaCha20Poly1305 => 256,
        }
    }

    /// The hash of the handshake and of the key schedule.
    pub const fn hash(self) -> &'static str {
        match self {
            CipherSuite::Aes256Gcm => "SHA-384",
            CipherSuite::Aes128Gcm | CipherSuite::ChaCha20Poly1305 => "SHA-256",
        }
    }

    /// Bits of the hash.
    pub const fn hash_bits(self) -> u16 {
        match self {
            CipherSuite::Aes256Gcm => 384,
            CipherSuite::Aes128Gcm | CipherSuite::ChaCha20Poly1305 => 256,
        }
    }

    pub(super) fn tls13(self) -> &'static Tls13CipherSuite {
        match self {
            CipherSuite::Aes128Gcm => &AES_128,
            CipherSuite::Aes256Gcm => &AES_256,
            CipherSuite::ChaCha20Poly1305 => &CHACHA20,
        }
    }

    /// False in a build with aws-lc's FIPS module for what is not approved.
    fn is_offered(&self) -> bool {
        !is_fips() || self.tls13().fips()
    }

    /// Those that this build offers.
    #[cfg(test)]
    pub(super) fn offered() -> impl Iterator<Item = CipherSuite> {
        CipherSuite::ALL.into_iter().filter(CipherSuite::is_offered)
    }

    pub(super) fn of_tls(suite: rustls::CipherSuite) -> Option<CipherSuite> {
        CipherSuite::ALL
            .into_iter()
            .find(|ours| ours.tls13().common.suite == suite)
    }

    pub(super) fn aead(self) -> &'static aead::Algorithm {
        match self {
            CipherSuite::Aes128Gcm => &aead::AES_128_GCM,
            CipherSuite::Aes256Gcm => &aead::AES_256_GCM,
            CipherSuite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    pub(super) fn header(self) -> &'static aead::quic::Algorithm {
        match self {
            CipherSuite::Aes128Gcm => &aead::quic::AES_128,
            CipherSuite::Aes256Gcm => &aead::quic::AES_256,
            CipherSuite::ChaCha20Poly1305 => &aead::quic::CHACHA20,
        }
    }

    /// Packets that may be sealed with one key (RFC 9001 section 6.6).
    pub fn confidentiality_limit(self) -> u64 {
        match self {
            CipherSuite::Aes128Gcm | CipherSuite::Aes256Gcm => 1 << 23,
            // More than the number of packets that can be sent.
            CipherSuite::ChaCha20Poly1305 => 1 << 62,
        }
    }

    /// Packets that may fail to open, over all keys of a connection (RFC 9001 section 6.6).
    pub fn integrity_limit(self) -> u64 {
        match self {
            CipherSuite::Aes128Gcm | CipherSuite::Aes256Gcm => 1 << 52,
            CipherSuite::ChaCha20Poly1305 => 1 << 36,
        }
    }
}

/// The provider of aws-lc-rs with these cipher suites, most preferred first. In a build with its FIPS module, only with those that are approved.
pub(super) fn provider(suites: &[CipherSuite]) -> CryptoProvider {
    let suites = suites
        .iter()
        .filter(|suite| suite.is_offered())
        .map(|suite| SupportedCipherSuite::Tls13(suite.tls13()))
        .collect();
    CryptoProvider {
        cipher_suites: suites,
        ..rustls::crypto::aws_lc_rs::default_provider()
    }
}

/// True if packet keys of sessions with this provider come out as raw bytes: all suites that may be agreed on for QUIC are ours.
pub(super) fn carries_keys(provider: &CryptoProvider) -> bool {
    quic_suites(provider).all(|suite| {
        CipherSuite::ALL
            .iter()
            .any(|ours| std::ptr::eq(ours.tls13(), suite))
    })
}

/// The suites of a provider that may be agreed on for QUIC.
pub(super) fn quic_suites(provider: &CryptoProvider) -> impl Iterator<Item = &'static Tls13CipherSuite> {
    provider
        .cipher_suites
        .iter()
        .filter_map(SupportedCipherSuite::tls13)
        .filter(|suite| suite.quic.is_some())
}

/// A provider for QUIC alone, in which the suites of `base` are replaced by ours, in its order.
pub fn provider_from(base: CryptoProvider) -> CryptoProvider {
    let suites = base.cipher_suites.iter().filter_map(SupportedCipherSuite::tls13);
    let ours = suites.filter_map(|suite| CipherSuite::of_tls(suite.common.suite));
    CryptoProvider {
        cipher_suites: ours
            .map(|suite| SupportedCipherSuite::Tls13(suite.tls13()))
            .collect(),
        ..base
    }
}

/// The longest key of the suites, in bytes.
const KEY_LEN_MAX: usize = 32;
/// Bytes that sealing adds to a packet, the same for all suites.
pub const TAG_LEN: usize = 16;
/// Bytes of an AEAD nonce.
pub(super) const IV_LEN: usize = 12;

/// The bytes of a key and, of a packet key, of its IV behind it, as taken out of a [`KeyCarrier`]. How long the key is, its suite says.
pub(super) struct KeyBytes([u8; KEY_LEN_MAX + IV_LEN]);

impl KeyBytes {
    pub(super) fn of_packet_key(carrier: &dyn quic::PacketKey, suite: CipherSuite) -> KeyBytes {
        let mut bytes = KeyBytes([0; KEY_LEN_MAX + IV_LEN]);
        carrier
            .decrypt_in_place(0, &[], &mut bytes.0[..suite.aead().key_len() + IV_LEN])
            .expect("a key carrier only copies, and the length is that of its suite");
        bytes
    }

    pub(super) fn of_header_key(carrier: &dyn quic::HeaderProtectionKey, suite: CipherSuite) -> KeyBytes {
        let mut bytes = KeyBytes([0; KEY_LEN_MAX + IV_LEN]);
        carrier
            .encrypt_in_place(&[], &mut 0, &mut bytes.0[..suite.aead().key_len()])
            .expect("a key carrier only copies, and the length is that of its suite");
        bytes
    }

    /// A key and an IV, as `fill` writes them.
    pub(super) fn filled(suite: CipherSuite, fill: impl FnOnce(&mut [u8], &mut [u8])) -> KeyBytes {
        let mut bytes = KeyBytes([0; KEY_LEN_MAX + IV_LEN]);
        let key_len = suite.aead().key_len();
        let (key, iv) = bytes.0[..key_len + IV_LEN].split_at_mut(key_len);
        fill(key, iv);
        bytes
    }

    pub(super) fn key(&self, suite: CipherSuite) -> &[u8] {
        &self.0[..suite.aead().key_len()]
    }

    pub(super) fn iv(&self, suite: CipherSuite) -> [u8; IV_LEN] {
        *self.0[suite.aead().key_len()..]
            .first_chunk()
            .expect("the array is as long as the longest key and an IV")
    }
}

impl Drop for KeyBytes {
    fn drop(&mut self) {
        zeroize_bytes(&mut self.0);
    }
}

struct KeyCarrier {
    key: AeadKey,
    iv: Option<Iv>,
    key_len: usize,
}

impl KeyCarrier {
    fn copy_to(&self, out: &mut [u8]) -> Result<(), rustls::Error> {
        let (key, iv) = out
            .split_at_mut_checked(self.key_len)
            .ok_or(rustls::Error::EncryptError)?;
        key.copy_from_slice(&self.key.as_ref()[..self.key_len]);
        if let Some(own) = &self.iv {
            iv.copy_from_slice(own.as_ref());
        }
        Ok(())
    }
}

impl quic::PacketKey for KeyCarrier {
    fn encrypt_in_place(&self, _: u64, _: &[u8], _: &mut [u8]) -> Result<Tag, rustls::Error> {
        Err(rustls::Error::EncryptError)
    }

    /// Decrypts nothing: writes the key and the IV.
    fn decrypt_in_place<'a>(&self, _: u64, _: &[u8], out: &'a mut [u8]) -> Result<&'a [u8], rustls::Error> {
        self.copy_to(out)?;
        Ok(out)
    }

    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        0
    }

    fn integrity_limit(&self) -> u64 {
        0
    }
}

impl quic::HeaderProtectionKey for KeyCarrier {
    /// Encrypts nothing: writes the key.
    fn encrypt_in_place(&self, _: &[u8], _: &mut u8, out: &mut [u8]) -> Result<(), rustls::Error> {
        self.copy_to(out)
    }

    fn decrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), rustls::Error> {
        Err(rustls::Error::DecryptError)
    }

    fn sample_len(&self) -> usize {
        crate::wire::header::SAMPLE_LEN
    }
}

struct CarrierAlgorithm {
    key_len: usize,
    /// The cipher is one that FIPS 140 approves of.
    approved: bool,
}

impl Algorithm for CarrierAlgorithm {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn quic::PacketKey> {
        Box::new(KeyCarrier {
            key,
            iv: Some(iv),
            key_len: self.key_len,
        })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn quic::HeaderProtectionKey> {
        Box::new(KeyCarrier {
            key,
            iv: None,
            key_len: self.key_len,
        })
    }

    fn aead_key_len(&self) -> usize {
        self.key_len
    }

    fn fips(&self) -> bool {
        self.approved && is_fips()
    }
}

/// The protection of TLS records, of which QUIC has none (RFC 9001 section 4): rustls makes it with each secret all the same, and setting up
/// four AEADs that nobody uses would be a fiftieth of a server's handshake.
struct NoRecords;

impl Tls13AeadAlgorithm for NoRecords {
    fn encrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageEncrypter> {
        // Of no size: nothing is taken from the heap.
        Box::new(NoRecords)
    }

    fn decrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(NoRecords)
    }

    fn key_len(&self) -> usize {
        KEY_LEN_MAX
    }

    /// There is no cryptography in it.
    fn fips(&self) -> bool {
        true
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

impl MessageEncrypter for NoRecords {
    fn encrypt(
        &mut self,
        _: OutboundPlainMessage<'_>,
        _: u64,
    ) -> Result<OutboundOpaqueMessage, rustls::Error> {
        Err(rustls::Error::EncryptError)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len
    }
}

impl MessageDecrypter for NoRecords {
    fn decrypt<'a>(
        &mut self,
        _: InboundOpaqueMessage<'a>,
        _: u64,
    ) -> Result<InboundPlainMessage<'a>, rustls::Error> {
        Err(rustls::Error::DecryptError)
    }
}

static AES_128_CARRIER: CarrierAlgorithm = CarrierAlgorithm {
    key_len: 16,
    approved: true,
};
static AES_256_CARRIER: CarrierAlgorithm = CarrierAlgorithm {
    key_len: 32,
    approved: true,
};
static CHACHA20_CARRIER: CarrierAlgorithm = CarrierAlgorithm {
    key_len: 32,
    approved: false,
};

static AES_128: LazyLock<Tls13CipherSuite> = LazyLock::new(|| {
    carrying(
        rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        hkdf::sha256(),
        &AES_128_CARRIER,
    )
});
static AES_256: LazyLock<Tls13CipherSuite> = LazyLock::new(|| {
    carrying(
        rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        hkdf::sha384(),
        &AES_256_CARRIER,
    )
});
static CHACHA20: LazyLock<Tls13CipherSuite> = LazyLock::new(|| {
    carrying(
        rustls::crypto::aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        hkdf::sha256(),
        &CHACHA20_CARRIER,
    )
});

fn carrying(
    suite: SupportedCipherSuite,
    hkdf: &'static dyn Hkdf,
    algorithm: &'static CarrierAlgorithm,
) -> Tls13CipherSuite {
    let stock = suite.tls13().expect("the suite is one of TLS 1.3");
    Tls13CipherSuite {
        common: rustls::crypto::CipherSuiteCommon {
            suite: stock.common.suite,
            hash_provider: stock.common.hash_provider,
            confidentiality_limit: stock.common.confidentiality_limit,
        },
        hkdf_provider: hkdf,
        aead_alg: &NoRecords,
        quic: Some(algorithm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_the_fips_module_everything_is_approved_and_nothing_is_ours() {
        let provider = provider(&CipherSuite::ALL);
        assert_eq!(provider.fips(), is_fips());
        assert_eq!(provider.cipher_suites.len(), if is_fips() { 2 } else { 3 });
        #[cfg(feature = "fused_aes_gcm")]
        if is_fips() {
            use crate::crypto::aes_gcm::form::Form;
            assert!(Form::ALL.into_iter().all(|form| !form.is_supported()));
        }
    }
}
