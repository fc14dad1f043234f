//! What a protocol cannot do without: payload copied from and to the application's memory, sealed and opened with AES-128-GCM, headers
//! protected (RFC 9001 section 5).

use anyhow::{Result, anyhow};
use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ringway_datapath::floor::DATAGRAM_BYTES;

/// First byte, connection ID of eight bytes, packet number of four.
const HEADER: usize = 13;
const NUMBER: usize = 9;
const TAG: usize = 16;
const SAMPLE: usize = 16;
/// Bytes of the application in a datagram.
pub(super) const PAYLOAD_BYTES: usize = DATAGRAM_BYTES - HEADER - TAG;
/// Memory of the application: more than any cache close to a core holds.
const MEMORY: usize = 16 << 20;

/// Keys, and the application's memory.
pub(crate) struct Sealing {
    key: LessSafeKey,
    header_key: HeaderProtectionKey,
    memory: Box<[u8]>,
    at: usize,
    number: u32,
}

impl Sealing {
    pub(crate) fn new() -> Result<Self> {
        let refused = |_| anyhow!("the cryptography library refuses a key");
        Ok(Sealing {
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[1; 16]).map_err(refused)?),
            header_key: HeaderProtectionKey::new(&quic::AES_128, &[2; 16]).map_err(refused)?,
            memory: vec![3; MEMORY].into(),
            at: 0,
            number: 0,
        })
    }

    /// The next part of the application's memory.
    fn part(&mut self) -> std::ops::Range<usize> {
        if self.at + PAYLOAD_BYTES > MEMORY {
            self.at = 0;
        }
        let start = self.at;
        self.at += PAYLOAD_BYTES;
        start..self.at
    }

    /// Makes a packet.
    pub(crate) fn seal(&mut self, datagram: &mut [u8]) -> Result<()> {
        let part = self.part();
        self.number += 1;
        let (header, rest) = datagram.split_at_mut(HEADER);
        let (payload, tag) = rest.split_at_mut(PAYLOAD_BYTES);
        header[0] = 0x43;
        header[1..NUMBER].fill(7);
        header[NUMBER..].copy_from_slice(&self.number.to_be_bytes());
        payload.copy_from_slice(&self.memory[part]);
        let sealed = self
            .key
            .seal_in_place_separate_tag(nonce(self.number), Aad::from(&*header), payload);
        tag.copy_from_slice(sealed.map_err(|_| anyhow!("sealing failed"))?.as_ref());
        // The sample begins where a packet number of four bytes ends.
        let mask = self.mask(&datagram[HEADER..HEADER + SAMPLE])?;
        protect(&mut datagram[..HEADER], mask);
        Ok(())
    }

    /// Takes a packet apart.
    pub(super) fn open(&mut self, datagram: &mut [u8]) -> Result<()> {
        let mask = self.mask(&datagram[HEADER..HEADER + SAMPLE])?;
        let (header, sealed) = datagram.split_at_mut(HEADER);
        protect(header, mask);
        let number: [u8; 4] = *header.last_chunk().unwrap_or(&[0; 4]);
        let nonce = nonce(u32::from_be_bytes(number));
        let opened = self.key.open_in_place(nonce, Aad::from(&*header), sealed);
        let opened = opened.map_err(|_| anyhow!("a packet arrived damaged"))?.len();
        let part = self.part();
        self.memory[part].copy_from_slice(&sealed[..opened]);
        Ok(())
    }

    fn mask(&self, sample: &[u8]) -> Result<[u8; 5]> {
        self.header_key
            .new_mask(sample)
            .map_err(|_| anyhow!("no mask for a header"))
    }
}

fn nonce(number: u32) -> Nonce {
    let mut nonce = [5; 12];
    nonce[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn protect(header: &mut [u8], mask: [u8; 5]) {
    header[0] ^= mask[0] & 0x1f;
    for (byte, mask) in header[NUMBER..].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_and_what_is_damaged_is_not() {
        let mut sealing = Sealing::new().unwrap();
        let mut datagram = [0; DATAGRAM_BYTES];
        sealing.seal(&mut datagram).unwrap();
        let mut damaged = datagram;
        damaged[100] ^= 1;
        assert!(sealing.open(&mut damaged).is_err());
        sealing.memory.fill(0);
        sealing.at = 0;
        sealing.open(&mut datagram).unwrap();
        assert!(sealing.memory[..PAYLOAD_BYTES].iter().all(|byte| *byte == 3));
    }
}
