//! AES-GCM for packets (RFC 5116 section 5, NIST SP 800-38D), in one pass, for processors with VAES, VPCLMULQDQ and AVX-512.
//!
//! On such a processor (4 GHz) aws-lc seals a full packet in 160 ns, 20 bytes in 68, and 1,443 bytes more of the same message in 60: most of the
//! time goes to what is done once for each message. Here a full packet takes 83 ns and 20 bytes take 12, for four reasons. The header's last
//! block, the lengths and the first and last bytes go into the same sums of GHASH as others do; what hides the tag is ciphered along with the
//! first bytes; nothing of a key is copied; and the nonce is not read from memory as wider words than it has just been written as, for which a
//! processor waits until all before it is done.
//!
//! Everything else is left to aws-lc: TLS, header protection, and packets on other processors. The instructions take the same time whatever
//! the data and the keys are, and no table is looked up.
//!
//! `key` is what packets are sealed with, `pass` the way of a message, `ghash` the arithmetic of its tag, `schedule` what is derived of a key.
//! What is unsafe is in `sys`, vectors to and from memory, and in `key::sys`, the way into code for processors that have the instructions.

mod ghash;
mod key;
mod nonce;
mod pass;
mod schedule;
#[allow(unsafe_code, reason = "vectors to and from memory")]
mod sys;

pub(super) use self::key::AesGcm;

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "of a test that fails it is shown")]
mod tests {
    use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, UnboundKey};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::AesGcm;
    use crate::crypto::suite::{IV_LEN, TAG_LEN};

    /// The same key with us and with aws-lc.
    struct Beside {
        ours: AesGcm,
        theirs: LessSafeKey,
        iv: [u8; IV_LEN],
        rng: StdRng,
    }

    /// Of another seed each time.
    fn rng() -> StdRng {
        let seed = match std::env::var("TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        println!("again: TEST_SEED={seed} cargo test --lib aes_gcm");
        StdRng::seed_from_u64(seed)
    }

    impl Beside {
        /// A random key. `None`, with a line that says so: the processor cannot.
        fn new(algorithm: &'static Algorithm, rng: &mut StdRng) -> Option<Beside> {
            let (mut key, iv) = (vec![0; algorithm.key_len()], rng.random());
            rng.fill(&mut key[..]);
            let Some(ours) = AesGcm::new(&key, iv) else {
                println!("SKIP: this processor does not have the instructions");
                return None;
            };
            let theirs = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
            Some(Beside {
                ours,
                theirs,
                iv,
                rng: StdRng::from_rng(rng),
            })
        }

        fn bytes(&mut self, len: usize) -> Vec<u8> {
            let mut bytes = vec![0; len];
            self.rng.fill(&mut bytes[..]);
            bytes
        }

        fn sealed_by_aws_lc(&self, number: u64, header: &[u8], plain: &[u8]) -> Vec<u8> {
            let mut nonce = self.iv;
            nonce[4..]
                .iter_mut()
                .zip(number.to_be_bytes())
                .for_each(|(byte, number)| *byte ^= number);
            let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
            let mut sealed = plain.to_vec();
            self.theirs
                .seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed)
                .unwrap();
            sealed
        }

        /// Seals and opens `len` bytes, the first `in_place` of them in place, behind a header of so many bytes.
        fn compare(&mut self, len: usize, header: usize, in_place: usize) {
            let case = format!("{len} bytes, {in_place} of them in place, header of {header}");
            let (number, header, plain) = (self.rng.random(), self.bytes(header), self.bytes(len));
            let mut expected = self.sealed_by_aws_lc(number, &header, &plain);

            // Bytes before and behind the packet must stay what they are.
            const GUARD: usize = 70;
            let mut memory = self.bytes(len + TAG_LEN + 2 * GUARD);
            memory[GUARD..][..in_place].copy_from_slice(&plain[..in_place]);
            let before = memory.clone();
            let packet = GUARD..GUARD + len + TAG_LEN;
            self.ours
                .seal(number, &header, &mut memory[packet.clone()], &plain[in_place..]);
            assert_eq!(memory[packet.clone()], expected, "{case}: sealed");
            let opened = self.ours.open(number, &header, &mut memory[packet.clone()]);
            assert_eq!(opened, Some(&mut plain.clone()[..]), "{case}: opened");
            assert_eq!(memory[..packet.start], before[..packet.start], "{case}: before");
            assert_eq!(memory[packet.end..], before[packet.end..], "{case}: behind");

            let mut changed = expected.clone();
            let bit = self.rng.random_range(0..changed.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                self.ours.open(number, &header, &mut changed),
                None,
                "{case}: bit {bit} changed"
            );
            assert_eq!(
                changed[..len],
                vec![0; len],
                "{case}: what is not authentic is not seen"
            );
            if !header.is_empty() {
                let mut changed = header.clone();
                let bit = self.rng.random_range(0..header.len() * 8);
                changed[bit / 8] ^= 1 << (bit % 8);
                let opened = self.ours.open(number, &changed, &mut expected);
                assert_eq!(opened, None, "{case}: bit {bit} of the header changed");
            }
        }

        fn compare_all(&mut self) {
            for len in 0..1_600 {
                let header = self.rng.random_range(0..=40);
                let in_place = self.rng.random_range(0..=len);
                // Around what the first vector and the first chunks hold, too.
                for in_place in [0, 13, 32, 33, 224, 225, 480, in_place, len] {
                    self.compare(len, header, in_place.min(len));
                }
            }
            for header in 0..=70 {
                let len = self.rng.random_range(0..600);
                self.compare(len, header, 0);
            }
            // The largest datagram.
            self.compare(65_535, 25, 20);
        }
    }

    #[test]
    fn aes_128_seals_and_opens_like_aws_lc() {
        if let Some(mut beside) = Beside::new(&AES_128_GCM, &mut rng()) {
            beside.compare_all();
        }
    }

    #[test]
    fn aes_256_seals_and_opens_like_aws_lc() {
        if let Some(mut beside) = Beside::new(&AES_256_GCM, &mut rng()) {
            beside.compare_all();
        }
    }

    #[test]
    fn many_keys_of_one_packet_each() {
        let mut rng = rng();
        for algorithm in [&AES_128_GCM, &AES_256_GCM].into_iter().cycle().take(2_000) {
            if let Some(mut beside) = Beside::new(algorithm, &mut rng) {
                beside.compare(100, 20, 50);
            }
        }
    }

    #[test]
    fn payload_without_room_for_a_tag_does_not_open() {
        if let Some(beside) = Beside::new(&AES_128_GCM, &mut rng()) {
            for len in 0..TAG_LEN {
                assert_eq!(beside.ours.open(0, &[1], &mut vec![0; len]), None);
            }
        }
    }
}
