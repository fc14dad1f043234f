//! Packet protection (RFC 9001 section 5).

use aws_lc_rs::aead::quic::HeaderProtectionKey;
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::tls13::OkmBlock;
use rustls::quic;

#[cfg(feature = "fused_aes_gcm")]
use super::aes_gcm::form::Form;
#[cfg(feature = "fused_aes_gcm")]
use super::aes_gcm::header::AesHeader;
#[cfg(feature = "fused_aes_gcm")]
use super::aes_gcm::key::AesGcm;
use super::hkdf;
use super::secret::{PacketLabel, Secret};
use super::suite::{CipherSuite, IV_LEN, KeyBytes, TAG_LEN};
use crate::wire::cid::ConnectionId;
use crate::wire::{Side, Version};

/// The packet could not be opened: it is not what the peer sealed with this key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecryptError;

/// A key that seals or opens packets.
pub struct PacketKey(Protection);

enum Protection {
    #[cfg(feature = "fused_aes_gcm")]
    AesGcm(Box<AesGcm>),
    Aead {
        key: LessSafeKey,
        iv: [u8; IV_LEN],
    },
    #[cfg(feature = "null-crypto")]
    Null,
}

impl PacketKey {
    pub(super) fn new(bytes: &KeyBytes, suite: CipherSuite) -> Self {
        #[cfg(feature = "fused_aes_gcm")]
        if suite != CipherSuite::ChaCha20Poly1305
            && let Some(form) = Form::chosen()
            && let Some(key) = AesGcm::new(form, bytes.key(suite), bytes.iv(suite))
        {
            return PacketKey(Protection::AesGcm(Box::new(key)));
        }
        let key =
            UnboundKey::new(suite.aead(), bytes.key(suite)).expect("the key has the length of its suite");
        PacketKey(Protection::Aead {
            key: LessSafeKey::new(key),
            iv: bytes.iv(suite),
        })
    }

    /// Seals a packet. `packet` is the header, plaintext already in place, and room for `tail` and the tag; what is
    /// sealed is the plaintext in place followed by `tail`, which is read where it lies: application memory goes
    /// into the packet without a copy.
    #[inline]
    pub fn seal(&self, number: u64, packet: &mut [u8], header_len: usize, tail: &[u8]) {
        let (header, rest) = packet.split_at_mut(header_len);
        match &self.0 {
            #[cfg(feature = "fused_aes_gcm")]
            Protection::AesGcm(key) => key.seal(number, header, rest, tail),
            Protection::Aead { key, iv } => {
                let (in_place, tail_and_tag) = rest.split_at_mut(rest.len() - tail.len() - TAG_LEN);
                key.seal_in_place_scatter(nonce(iv, number), Aad::from(header), in_place, tail, tail_and_tag)
                    .expect("the lengths fit and a packet is far shorter than the AEAD allows");
            }
            #[cfg(feature = "null-crypto")]
            Protection::Null => {
                let (_, tail_and_tag) = rest.split_at_mut(rest.len() - tail.len() - TAG_LEN);
                tail_and_tag[..tail.len()].copy_from_slice(tail);
                tail_and_tag[tail.len()..].fill(0);
            }
        }
    }

    /// Opens a packet in place and gives the plaintext.
    #[inline]
    pub fn open<'a>(
        &self,
        number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a mut [u8], DecryptError> {
        match &self.0 {
            #[cfg(feature = "fused_aes_gcm")]
            Protection::AesGcm(key) => key.open(number, header, payload).ok_or(DecryptError),
            Protection::Aead { key, iv } => key
                .open_in_place(nonce(iv, number), Aad::from(header), payload)
                .map_err(|_| DecryptError),
            #[cfg(feature = "null-crypto")]
            Protection::Null => {
                let len = payload.len().checked_sub(TAG_LEN).ok_or(DecryptError)?;
                Ok(&mut payload[..len])
            }
        }
    }

    /// A key that protects nothing, for benchmarks.
    #[cfg(feature = "null-crypto")]
    pub fn null() -> Self {
        PacketKey(Protection::Null)
    }
}

/// The packet number, big-endian, exclusive-or with the IV (RFC 9001 section 5.3).
#[inline]
fn nonce(iv: &[u8; IV_LEN], number: u64) -> Nonce {
    let mut nonce = *iv;
    for (byte, number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= number;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// A key that makes masks for header protection (RFC 9001 section 5.4).
pub struct HeaderKey(HeaderProtection);

#[allow(
    clippy::large_enum_variant,
    reason = "what holds it is in a box, or lives as long as a packet is built"
)]
enum HeaderProtection {
    #[cfg(feature = "fused_aes_gcm")]
    Aes(AesHeader),
    Cipher(HeaderProtectionKey),
    #[cfg(feature = "null-crypto")]
    Null,
}

impl HeaderKey {
    fn new(bytes: &KeyBytes, suite: CipherSuite) -> Self {
        #[cfg(feature = "fused_aes_gcm")]
        if suite != CipherSuite::ChaCha20Poly1305
            && Form::chosen().is_some()
            && let Some(key) = AesHeader::new(bytes.key(suite))
        {
            return HeaderKey(HeaderProtection::Aes(key));
        }
        let key = HeaderProtectionKey::new(suite.header(), bytes.key(suite));
        HeaderKey(HeaderProtection::Cipher(
            key.expect("the key has the length of its suite"),
        ))
    }

    /// The mask for a packet with this sample.
    #[inline]
    pub fn mask(&self, sample: &[u8; 16]) -> [u8; 5] {
        match &self.0 {
            #[cfg(feature = "fused_aes_gcm")]
            HeaderProtection::Aes(key) => key.mask(sample),
            HeaderProtection::Cipher(key) => key.new_mask(sample).expect("a sample is 16 bytes"),
            #[cfg(feature = "null-crypto")]
            HeaderProtection::Null => [0; 5],
        }
    }

    /// A key whose masks hide nothing, for benchmarks.
    #[cfg(feature = "null-crypto")]
    pub fn null() -> Self {
        HeaderKey(HeaderProtection::Null)
    }
}

/// The keys of one direction.
pub struct DirectionalKeys {
    /// Header protection.
    pub header: HeaderKey,
    /// Packet protection.
    pub packet: PacketKey,
}

/// The keys of one direction as they are kept where few packets need them: as bytes. Ready for use they take twelve times the room, what aws-lc
/// takes from the heap included; of six sets of them that would be more than half of what a connection holds in its handshake. To make them ready
/// takes a fraction of a microsecond.
pub struct StoredKeys(Stored);

enum Stored {
    Bytes {
        suite: CipherSuite,
        packet: KeyBytes,
        header: KeyBytes,
    },
    #[cfg(feature = "null-crypto")]
    Null,
}

impl StoredKeys {
    pub(super) fn new(keys: &quic::DirectionalKeys, suite: CipherSuite) -> Self {
        StoredKeys(Stored::Bytes {
            suite,
            packet: KeyBytes::of_packet_key(&*keys.packet, suite),
            header: KeyBytes::of_header_key(&*keys.header, suite),
        })
    }

    /// The keys of a traffic secret (RFC 9001 section 5.1).
    pub(super) fn of_secret(secret: &Secret, suite: CipherSuite, version: Version) -> Self {
        StoredKeys(Stored::Bytes {
            suite,
            packet: packet_key(secret, suite, version),
            header: header_key(secret, suite, version),
        })
    }

    /// The keys, ready for use.
    pub fn expand(&self) -> DirectionalKeys {
        match &self.0 {
            Stored::Bytes {
                suite,
                packet,
                header,
            } => DirectionalKeys {
                header: HeaderKey::new(header, *suite),
                packet: PacketKey::new(packet, *suite),
            },
            #[cfg(feature = "null-crypto")]
            Stored::Null => DirectionalKeys {
                header: HeaderKey::null(),
                packet: PacketKey::null(),
            },
        }
    }

    /// Puts the packet key of another phase in the place of this one.
    pub(super) fn set_packet(&mut self, next: KeyBytes) {
        match &mut self.0 {
            Stored::Bytes { packet, .. } => *packet = next,
            #[cfg(feature = "null-crypto")]
            Stored::Null => {}
        }
    }

    /// Keys that protect nothing, for benchmarks.
    #[cfg(feature = "null-crypto")]
    pub(super) fn null() -> Self {
        StoredKeys(Stored::Null)
    }
}

/// The keys of both directions of one packet number space.
pub struct Keys {
    /// For packets that we send.
    pub local: StoredKeys,
    /// For packets that we receive.
    pub remote: StoredKeys,
}

impl Keys {
    /// The keys of Initial packets, which everybody who sees the client's first packet can compute (RFC 9001 section 5.2).
    pub fn initial(version: Version, client_dcid: &ConnectionId, side: Side) -> Keys {
        let suite = CipherSuite::Aes128Gcm.tls13();
        let algorithm = suite.quic.expect("our suites have QUIC keys");
        let side = match side {
            Side::Client => rustls::Side::Client,
            Side::Server => rustls::Side::Server,
        };
        let keys = quic::Keys::initial(
            tls_version(version),
            suite,
            algorithm,
            client_dcid.as_bytes(),
            side,
        );
        Keys::new(&keys, CipherSuite::Aes128Gcm)
    }

    /// The keys of the traffic secrets of both directions: local, remote. `None`: they are not secrets of this suite.
    pub(super) fn of_secrets(secrets: [&OkmBlock; 2], suite: CipherSuite, version: Version) -> Option<Keys> {
        let keys = |secret: &OkmBlock| {
            let secret = Secret::new(suite, secret.as_ref())?;
            Some(StoredKeys::of_secret(&secret, suite, version))
        };
        Some(Keys {
            local: keys(secrets[0])?,
            remote: keys(secrets[1])?,
        })
    }

    pub(super) fn new(keys: &quic::Keys, suite: CipherSuite) -> Keys {
        Keys {
            local: StoredKeys::new(&keys.local, suite),
            remote: StoredKeys::new(&keys.remote, suite),
        }
    }
}

/// What the packet keys of the next phases are made from (RFC 9001 section 6.1).
pub(super) enum UpdateSecrets {
    /// rustls makes them.
    Tls(quic::Secrets),
    /// The traffic secrets of the current phase: local, remote.
    Own([OkmBlock; 2]),
}

impl UpdateSecrets {
    /// The packet keys that follow the current ones: (local, remote).
    pub(super) fn next(&mut self, suite: CipherSuite, version: Version) -> (KeyBytes, KeyBytes) {
        match self {
            UpdateSecrets::Tls(secrets) => {
                let keys = hkdf::with_labels_of(version, || secrets.next_packet_keys());
                (
                    KeyBytes::of_packet_key(&*keys.local, suite),
                    KeyBytes::of_packet_key(&*keys.remote, suite),
                )
            }
            UpdateSecrets::Own(secrets) => {
                let [local, remote] = secrets.each_mut().map(|secret| {
                    let current = traffic_secret(suite, secret);
                    *secret = current.expand_secret(PacketLabel::KeyUpdate.of(version), &[]);
                    packet_key(&traffic_secret(suite, secret), suite, version)
                });
                (local, remote)
            }
        }
    }
}

/// The packet key of a traffic secret, and its IV (RFC 9001 section 5.1).
fn packet_key(secret: &Secret, suite: CipherSuite, version: Version) -> KeyBytes {
    KeyBytes::filled(suite, |key, iv| {
        let expanded = secret.expand_label(PacketLabel::Key.of(version), &[], key)
            && secret.expand_label(PacketLabel::Iv.of(version), &[], iv);
        debug_assert!(expanded, "keys are no longer than the hash allows");
    })
}

/// The header protection key of a traffic secret.
fn header_key(secret: &Secret, suite: CipherSuite, version: Version) -> KeyBytes {
    KeyBytes::filled(suite, |key, _| {
        let expanded = secret.expand_label(PacketLabel::HeaderProtection.of(version), &[], key);
        debug_assert!(expanded, "keys are no longer than the hash allows");
    })
}

fn traffic_secret(suite: CipherSuite, secret: &OkmBlock) -> Secret {
    Secret::new(suite, secret.as_ref()).expect("traffic secrets are as long as the hash of their suite")
}

pub(super) fn tls_version(version: Version) -> quic::Version {
    match version {
        Version::V1 => quic::Version::V1,
        Version::V2 => quic::Version::V2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|d| d as u8)
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    const DCID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

    /// Seals the server's Initial of the appendix and compares all of it; then opens it as the client.
    fn server_initial(version: Version, header_hex: &str, protected_hex: &str) {
        let plain = hex(
            "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a12
             00130100002e00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00020304",
        );
        let header = hex(header_hex);
        let expected = hex(protected_hex);
        let dcid = ConnectionId::new(&DCID).unwrap();
        let keys = Keys::initial(version, &dcid, Side::Server).local.expand();
        // All of the plaintext in place, and split between in place and tail.
        for split in [plain.len(), 10] {
            let mut packet = [&header[..], &plain[..split]].concat();
            packet.resize(header.len() + plain.len() + TAG_LEN, 0);
            keys.packet.seal(1, &mut packet, header.len(), &plain[split..]);
            let offset = header.len() - 2;
            let mask = keys.header.mask(header::sample(&packet, offset).unwrap());
            header::apply_protection(&mut packet, offset, 2, mask);
            assert_eq!(packet, expected);

            let keys = Keys::initial(version, &dcid, Side::Client).remote.expand();
            let mask = keys.header.mask(header::sample(&packet, offset).unwrap());
            assert_eq!(header::remove_protection(&mut packet, offset, mask).number, 1);
            let (head, payload) = packet.split_at_mut(header.len());
            assert_eq!(keys.packet.open(1, head, payload).unwrap(), plain);
        }
    }

    #[test]
    fn rfc_9001_appendix_a3_server_initial() {
        server_initial(
            Version::V1,
            "c1000000010008f067a5502a4262b50040750001",
            "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb3
             8cc5a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84
             022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee",
        );
    }

    #[test]
    fn rfc_9369_appendix_a3_server_initial() {
        server_initial(
            Version::V2,
            "d16b3343cf0008f067a5502a4262b50040750001",
            "dc6b3343cf0008f067a5502a4262b5004075d92faaf16f05d8a4398c47089698baeea26b91eb761d9b89237bbf872630
             17915358230035f7fd3945d88965cf17f9af6e16886c61bfc703106fbaf3cb4cfa52382dd16a393e42757507698075b2
             c984c707f0a0812d8cd5a6881eaf21ceda98f4bd23f6fe1a3e2c43edd9ce7ca84bed8521e2e140",
        );
    }

    /// The CRYPTO frame of RFC 9001 Appendix A.2 behind its frame header.
    #[test]
    fn rfc_9001_appendix_a2_client_initial() {
        let frame = hex(
            "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c
             0000041301130201 0000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d00170018
             0010000700050461 6c706e0005000501000000000033002600240 01d00209370b2c9caa47fbabaf4559fedba753de17
             1fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101
             001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394
             c8f03e51570806048000ffff",
        );
        let header = hex("c300000001088394c8f03e5157080000449e00000002");
        let keys = Keys::initial(Version::V1, &ConnectionId::new(&DCID).unwrap(), Side::Client)
            .local
            .expand();
        let mut packet = header.clone();
        packet.extend(&frame);
        packet.resize(1200, 0);
        keys.packet.seal(2, &mut packet, header.len(), &[]);
        let sample = header::sample(&packet, header.len() - 4).unwrap();
        assert_eq!(sample[..], hex("d1b1c98dd7689fb8ec11d242b123dc9b"));
        let mask = keys.header.mask(sample);
        assert_eq!(mask[..], hex("437b9aec36"));
        header::apply_protection(&mut packet, header.len() - 4, 4, mask);
        assert_eq!(
            packet[..header.len()],
            hex("c000000001088394c8f03e5157080000449e7b9aec34")
        );
        assert_eq!(packet[1184..], hex("e221af44860018ab0856972e194cd934"));
    }

    #[test]
    fn packet_changed_on_the_way_does_not_open() {
        let dcid = ConnectionId::new(&DCID).unwrap();
        let client = Keys::initial(Version::V1, &dcid, Side::Client).local.expand();
        let server = Keys::initial(Version::V1, &dcid, Side::Server).remote.expand();
        let mut packet = vec![7; 40 + TAG_LEN];
        client.packet.seal(3, &mut packet, 10, &[]);
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            let (header, payload) = changed.split_at_mut(10);
            assert_eq!(server.packet.open(3, header, payload).unwrap_err(), DecryptError);
        }
        let (header, payload) = packet.split_at_mut(10);
        assert!(server.packet.open(3, header, payload).is_ok());
    }
}
