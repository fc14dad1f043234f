//! Packets that need no connection: version negotiation, Retry, stateless reset.

use rand::Rng;

use super::Version;
use super::cid::{ConnectionId, ResetToken};
use super::header::retry_first_byte;
use crate::base::coding::Writer;

/// Bytes of a stateless reset token.
const TOKEN_LEN: usize = 16;
/// The shortest stateless reset (RFC 9000 section 10.3).
const RESET_LEN_MIN: usize = 21;
/// Resets of up to this length cannot be told from short 1-RTT packets.
const RESET_LEN_MAX: usize = 42;

/// Writes a version negotiation packet (RFC 9000 section 17.2.1) that answers a packet with these connection IDs by these versions.
pub fn version_negotiation(
    out: &mut [u8],
    dcid: &[u8],
    scid: &[u8],
    versions: &[Version],
    rng: &mut impl Rng,
) -> Option<usize> {
    // Up to 255 bytes each (RFC 8999): what does not fit is not answered.
    if 7 + dcid.len() + scid.len() + 4 * (versions.len() + 1) > out.len() {
        return None;
    }
    let mut writer = Writer::new(out);
    let random = rng.next_u32();
    writer.u8(0xc0 | random as u8);
    writer.u32(0);
    for cid in [scid, dcid] {
        writer.u8(cid.len() as u8);
        writer.bytes(cid);
    }
    for version in versions {
        writer.u32(version.number());
    }
    writer.u32(Version::reserved(random));
    Some(writer.len())
}

/// Writes a Retry packet without its integrity tag (RFC 9000 section 17.2.5) and gives the length; 16 bytes for the tag must
/// be left.
pub fn retry(
    out: &mut [u8],
    version: Version,
    dcid: &ConnectionId,
    scid: &ConnectionId,
    token: &[u8],
) -> usize {
    let mut writer = Writer::new(out);
    writer.u8(retry_first_byte(version));
    writer.u32(version.number());
    for cid in [dcid, scid] {
        writer.u8(cid.len() as u8);
        cid.write(&mut writer);
    }
    writer.bytes(token);
    writer.len()
}

/// Writes a stateless reset (RFC 9000 section 10.3) that answers a packet of `trigger_len` bytes. Always shorter than that, so that two endpoints
/// never answer each other for ever; `None` if the trigger is too short for it.
pub fn reset(out: &mut [u8], trigger_len: usize, token: &ResetToken, rng: &mut impl Rng) -> Option<usize> {
    let len = trigger_len.checked_sub(1)?.min(RESET_LEN_MAX);
    if len < RESET_LEN_MIN {
        return None;
    }
    let out = &mut out[..len];
    rng.fill_bytes(out);
    out[0] = 0x40 | out[0] & 0x3f;
    out[len - TOKEN_LEN..].copy_from_slice(&token.0);
    Some(len)
}

/// The token that a datagram carries if it is a stateless reset.
#[inline]
pub fn reset_token_of(datagram: &[u8]) -> Option<ResetToken> {
    if datagram.len() < RESET_LEN_MIN {
        return None;
    }
    datagram.last_chunk().map(|token| ResetToken(*token))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::wire::header::{self, ProtectedHeader};

    #[test]
    fn resets_get_shorter_until_the_loop_ends() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut buf = [0; 100];
        let mut len = 1200;
        let mut rounds = 0;
        while let Some(next) = reset(&mut buf, len, &ResetToken([7; 16]), &mut rng) {
            assert!(next < len && next >= 21);
            assert_eq!(reset_token_of(&buf[..next]), Some(ResetToken([7; 16])));
            assert!(!header::is_long(&buf));
            len = next;
            rounds += 1;
        }
        assert!(rounds < 30);
    }

    #[test]
    fn version_negotiation_answers_with_the_ids_swapped() {
        let mut buf = [0; 100];
        let mut rng = StdRng::seed_from_u64(1);
        let all = &Version::SUPPORTED;
        let len = version_negotiation(&mut buf, &[1, 2], &[3; 5], all, &mut rng).unwrap();
        let Ok(ProtectedHeader::VersionNegotiation(vn)) = header::decode(&buf[..len], 8) else {
            panic!()
        };
        assert_eq!(vn.dcid.as_bytes(), [3; 5]);
        assert_eq!(vn.scid.as_bytes(), [1, 2]);
        let versions: Vec<_> = header::versions(&buf[vn.versions]).collect();
        assert_eq!(versions[..2], [1, 0x6b3343cf]);
        assert_eq!(versions[2] & 0x0f0f_0f0f, 0x0a0a_0a0a);
        assert!(version_negotiation(&mut buf, &[0; 255], &[0; 255], all, &mut rng).is_none());
    }

    #[test]
    fn retry_of_both_versions_decodes() {
        for version in Version::SUPPORTED {
            let mut buf = [0; 100];
            let (dcid, scid) = (
                ConnectionId::new(&[1; 3]).unwrap(),
                ConnectionId::new(&[2; 8]).unwrap(),
            );
            let len = retry(&mut buf, version, &dcid, &scid, b"abc") + 16;
            let Ok(ProtectedHeader::Retry(header)) = header::decode(&buf[..len], 8) else {
                panic!()
            };
            assert_eq!((header.version, header.dcid, header.scid), (version, dcid, scid));
            assert_eq!(&buf[header.token], b"abc");
        }
    }
}
