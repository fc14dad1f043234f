//! Each form, beside aws-lc and with the vectors of others.

#[cfg(target_arch = "x86_64")]
pub(super) mod constant_time;
mod wycheproof;

use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, UnboundKey};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::form::Form;
use super::header::AesHeader;
use super::key::AesGcm;
use crate::crypto::suite::{IV_LEN, TAG_LEN};

/// The same key with us and with aws-lc.
struct Beside {
    form: Form,
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

/// Of so many lengths one is tried. An emulator is some hundred times as slow as a processor.
fn step() -> usize {
    std::env::var("TEST_LENGTH_STEP").map_or(1, |step| step.parse().unwrap())
}

/// The forms that this processor has. A line says which it lacks.
fn forms() -> impl Iterator<Item = Form> {
    Form::ALL.into_iter().filter(|form| {
        if !form.is_supported() {
            println!(
                "SKIP: this processor does not have the instructions of {}",
                form.name()
            );
        }
        form.is_supported()
    })
}

impl Beside {
    /// A random key.
    fn new(form: Form, algorithm: &'static Algorithm, rng: &mut StdRng) -> Beside {
        let (mut key, iv) = (vec![0; algorithm.key_len()], rng.random());
        rng.fill(&mut key[..]);
        Beside {
            form,
            ours: AesGcm::new(form, &key, iv).expect("the form is one that the processor has"),
            theirs: LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap()),
            iv,
            rng: StdRng::from_rng(rng),
        }
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

    /// Seals and opens `len` bytes, the first `in_place` of them in place, behind a header of so many bytes, all at random addresses.
    fn compare(&mut self, len: usize, header: usize, in_place: usize) {
        let case = format!(
            "{}: {len} bytes, {in_place} of them in place, header of {header}",
            self.form.name()
        );
        let (number, header) = (self.rng.random(), self.bytes(header));
        let shift = self.rng.random_range(0..64);
        let shifted = self.bytes(shift + len);
        let plain = &shifted[shift..];
        let mut expected = self.sealed_by_aws_lc(number, &header, plain);

        // Bytes before and behind the packet must stay what they are.
        const GUARD: usize = 70;
        let start = GUARD + self.rng.random_range(0..64);
        let mut memory = self.bytes(start + len + TAG_LEN + GUARD);
        memory[start..][..in_place].copy_from_slice(&plain[..in_place]);
        let before = memory.clone();
        let packet = start..start + len + TAG_LEN;
        self.ours
            .seal(number, &header, &mut memory[packet.clone()], &plain[in_place..]);
        assert_eq!(memory[packet.clone()], expected, "{case}: sealed");
        let opened = self.ours.open(number, &header, &mut memory[packet.clone()]);
        assert_eq!(opened, Some(&mut plain.to_vec()[..]), "{case}: opened");
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
        for len in (self.rng.random_range(0..step())..=2_048).step_by(step()) {
            let header = self.rng.random_range(0..=40);
            let in_place = self.rng.random_range(0..=len);
            for in_place in [0, 13, in_place, len] {
                self.compare(len, header, in_place.min(len));
            }
        }
        // Around what the head and the first chunks hold.
        for in_place in [16, 31, 32, 33, 95, 96, 97, 223, 224, 225, 480] {
            for len in (in_place..in_place + 300).step_by(step()) {
                self.compare(len, 20, in_place);
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
fn every_form_seals_and_opens_like_aws_lc() {
    let mut rng = rng();
    let cases = forms().flat_map(|form| [(form, &AES_128_GCM), (form, &AES_256_GCM)]);
    let all: Vec<Beside> = cases
        .map(|(form, algorithm)| Beside::new(form, algorithm, &mut rng))
        .collect();
    std::thread::scope(|scope| {
        for mut beside in all {
            scope.spawn(move || beside.compare_all());
        }
    });
}

#[test]
fn many_keys_of_one_packet_each() {
    let mut rng = rng();
    for form in forms() {
        for algorithm in [&AES_128_GCM, &AES_256_GCM]
            .into_iter()
            .cycle()
            .take(2_000 / step())
        {
            Beside::new(form, algorithm, &mut rng).compare(100, 20, 50);
        }
    }
}

#[test]
fn headers_are_hidden_as_by_aws_lc() {
    let mut rng = rng();
    for algorithm in [&quic::AES_128, &quic::AES_256].into_iter().cycle().take(200) {
        let mut key = vec![0; algorithm.key_len()];
        rng.fill(&mut key[..]);
        let Some(ours) = AesHeader::new(&key) else {
            println!("SKIP: this processor does not have instructions for AES");
            return;
        };
        let sample: [u8; 16] = rng.random();
        let theirs = HeaderProtectionKey::new(algorithm, &key).unwrap();
        assert_eq!(ours.mask(&sample), theirs.new_mask(&sample).unwrap());
    }
}

#[test]
fn payload_without_room_for_a_tag_does_not_open() {
    for form in forms() {
        let beside = Beside::new(form, &AES_128_GCM, &mut rng());
        for len in 0..TAG_LEN {
            assert_eq!(beside.ours.open(0, &[1], &mut vec![0; len]), None);
        }
    }
}

/// Each in a process of its own, since the variable is read once.
#[test]
fn every_form_that_the_variable_names_passes_the_vectors_of_the_rfcs() {
    /// What a process exits with in which no program could be started.
    const NOT_STARTED: i32 = 127;
    let names = forms().map(Form::name).chain(["aws_lc"]);
    for name in names {
        let tests = [
            "crypto::keys::tests::rfc_",
            "crypto::aes_gcm::form::tests::what_the_variable_names_is_chosen",
        ];
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let output = command.args(tests).env("RINGWAY_AES_GCM", name).output().unwrap();
        if output.status.code() == Some(NOT_STARTED) && output.stdout.is_empty() {
            println!("SKIP: this program is emulated, and cannot be started by itself");
            return;
        }
        assert!(output.status.success(), "{name}: {output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(" 4 passed"), "{name}: {said}");
    }
}
