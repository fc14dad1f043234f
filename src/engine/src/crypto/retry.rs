//! The integrity tag of Retry packets (RFC 9001 section 5.8, RFC 9369 section 3.3.3).

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time;

use crate::wire::Version;
use crate::wire::cid::ConnectionId;

/// Bytes of the tag.
pub const TAG_LEN: usize = 16;

/// The tag of a Retry `packet` (without its tag) that answers an Initial sent to `original_dcid`.
pub fn integrity_tag(version: Version, original_dcid: &ConnectionId, packet: &[u8]) -> [u8; TAG_LEN] {
    let (key, nonce) = match version {
        Version::V1 => (
            [
                0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8,
                0x4e,
            ],
            [
                0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb,
            ],
        ),
        Version::V2 => (
            [
                0x8f, 0xb4, 0xb0, 0x1b, 0x56, 0xac, 0x48, 0xe2, 0x60, 0xfb, 0xcb, 0xce, 0xad, 0x7c, 0xcc,
                0x92,
            ],
            [
                0xd8, 0x69, 0x69, 0xbc, 0x2d, 0x7c, 0x6d, 0x99, 0x90, 0xef, 0xb0, 0x4a,
            ],
        ),
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("the key has 16 bytes"));
    let mut pseudo = Vec::with_capacity(1 + original_dcid.len() + packet.len());
    pseudo.push(original_dcid.len() as u8);
    pseudo.extend_from_slice(original_dcid.as_bytes());
    pseudo.extend_from_slice(packet);
    // Key and nonce are constants of the protocol; the tag is an integrity check, not a secret.
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(pseudo), &mut [])
        .expect("nothing is encrypted");
    tag.as_ref().try_into().expect("the tag has 16 bytes")
}

/// True if a Retry packet, which ends with its tag, answers an Initial sent to `original_dcid`.
pub fn verify(version: Version, original_dcid: &ConnectionId, packet: &[u8]) -> bool {
    packet.split_last_chunk::<TAG_LEN>().is_some_and(|(packet, tag)| {
        constant_time::verify_slices_are_equal(&integrity_tag(version, original_dcid, packet), tag).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, packet: &[u8]) {
        let dcid = ConnectionId::new(&[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]).unwrap();
        assert!(verify(version, &dcid, packet));
        let mut changed = packet.to_vec();
        changed[15] ^= 1;
        assert!(!verify(version, &dcid, &changed));
        assert!(!verify(version, &ConnectionId::default(), packet));
        assert!(!verify(version, &dcid, &packet[..10]));
    }

    #[test]
    fn rfc_9001_appendix_a4_retry() {
        check(
            Version::V1,
            b"\xff\x00\x00\x00\x01\x00\x08\xf0\x67\xa5\x50\x2a\x42\x62\xb5token\x04\xa2\x65\xba\x2e\xff\x4d\x82\x90\x58\xfb\x3f\x0f\x24\x96\xba",
        );
    }

    #[test]
    fn rfc_9369_appendix_a4_retry() {
        check(
            Version::V2,
            b"\xcf\x6b\x33\x43\xcf\x00\x08\xf0\x67\xa5\x50\x2a\x42\x62\xb5token\xc8\x64\x6c\xe8\xbf\xe3\x39\x52\xd9\x55\x54\x36\x65\xdc\xc7\xb6",
        );
    }
}
