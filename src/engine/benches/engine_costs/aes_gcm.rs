//! Each form of AES-GCM beside aws-lc's with the same instructions.

use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Instant;

use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ringway_engine::crypto::aes_gcm::form::Form;
use ringway_engine::crypto::aes_gcm::header::AesHeader;
use ringway_engine::crypto::aes_gcm::key::AesGcm;

use crate::output::{print_error, print_line};

/// Bytes of a packet's payload: a full packet has 1,443.
const SIZES: [usize; 5] = [20, 300, 1_200, 1_443, 4_000];
const TAG_LEN: usize = 16;
/// Of a packet with a short header and a connection ID of 8 bytes.
const HEADER_LEN: usize = 13;
/// The frame's header, which is written before; the rest is the application's, and is copied as it is sealed.
const IN_PLACE: usize = 12;
const IV: [u8; 12] = [7; 12];
/// Packets that are timed at once: few, so that what else the processor does falls on whole measurements, of which the slow ones do not count.
const PACKETS: u32 = 60;
const MEASUREMENTS: usize = 1_000;

/// Measures each form in a process of its own: aws-lc reads once which instructions it may use.
pub(crate) fn time_all() -> ExitCode {
    for form in Form::ALL {
        if !form.is_supported() {
            print_line(&format!("SKIP {}: this processor does not have it", form.name()));
            continue;
        }
        let this = std::env::current_exe().expect("the system knows which program this is");
        let mut command = Command::new(this);
        command.args(["aes-gcm", form.name()]);
        if form != Form::Avx512 {
            // aws-lc has no form for VAES without AVX-512. Behind the colon: what is masked of CPUID's leaf 7, EBX and ECX.
            command.env("OPENSSL_ia32cap", ":~0x60000010000");
        }
        match command.status() {
            Ok(status) if status.success() => {}
            failed => {
                print_error(&format!("measuring {}: {failed:?}", form.name()));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Measures one form beside aws-lc, by turns.
pub(crate) fn time(form: &str) -> ExitCode {
    let Some(form) = Form::ALL.into_iter().find(|known| known.name() == form) else {
        print_error(&format!("there is no form {form}"));
        return ExitCode::FAILURE;
    };
    for (algorithm, cipher) in [(&AES_128_GCM, "AES-128"), (&AES_256_GCM, "AES-256")] {
        let key = vec![5; algorithm.key_len()];
        let Some(ours) = AesGcm::new(form, &key, IV) else {
            print_error(&format!("this processor does not have {}", form.name()));
            return ExitCode::FAILURE;
        };
        let theirs =
            LessSafeKey::new(UnboundKey::new(algorithm, &key).expect("the length is the algorithm's"));
        for size in SIZES {
            let [seal, their_seal, open, their_open] = compare(&ours, &theirs, size);
            print_line(&format!(
                "{:7} {cipher} {size:5} bytes: sealed in {seal:6.1} ns, by aws-lc {their_seal:6.1} ({:.2}); opened in {open:6.1} ns, by aws-lc \
                 {their_open:6.1} ({:.2})",
                form.name(),
                seal / their_seal,
                open / their_open,
            ));
        }
    }
    for (algorithm, cipher) in [(&quic::AES_128, "AES-128"), (&quic::AES_256, "AES-256")] {
        let [mask, their_mask] = compare_masks(algorithm);
        print_line(&format!(
            "headers {cipher}: hidden in {mask:5.1} ns, by aws-lc {their_mask:5.1} ({:.2})",
            mask / their_mask
        ));
    }
    ExitCode::SUCCESS
}

/// Nanoseconds that the mask of a header takes us, aws-lc.
fn compare_masks(algorithm: &'static quic::Algorithm) -> [f64; 2] {
    let key = vec![5; algorithm.key_len()];
    let ours = AesHeader::new(&key).expect("there is a form of AES-GCM");
    let theirs = HeaderProtectionKey::new(algorithm, &key).expect("the length is the algorithm's");
    let (mut our_sample, mut their_sample) = ([1; 16], [1; 16]);
    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..MEASUREMENTS {
        // Each from the one before, as a packet's number waits for its mask.
        times[0].push(timed(|| {
            let mask = ours.mask(black_box(&our_sample));
            our_sample[..5].copy_from_slice(&mask);
        }));
        times[1].push(timed(|| {
            let mask = theirs.new_mask(black_box(&their_sample));
            their_sample[..5].copy_from_slice(&mask.expect("a sample is 16 bytes"));
        }));
    }
    times.map(undisturbed)
}

/// Nanoseconds that sealing takes us, aws-lc, and that opening takes us, aws-lc.
fn compare(ours: &AesGcm, theirs: &LessSafeKey, size: usize) -> [f64; 4] {
    let header = [1; HEADER_LEN];
    let (frame, tail) = ([3; IN_PLACE], vec![9; size - IN_PLACE]);
    let mut packet = vec![3; size + TAG_LEN];
    // No packet number: the nonce is the IV.
    let mut sealed = packet.clone();
    ours.seal(0, &header, &mut sealed, &[]);
    let mut received = sealed.clone();
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..MEASUREMENTS {
        let [seal, their_seal, open, their_open, copy] = &mut times;
        seal.push(timed(|| {
            packet[..IN_PLACE].copy_from_slice(black_box(&frame));
            ours.seal(0, black_box(&header), black_box(&mut packet), black_box(&tail));
        }));
        their_seal.push(timed(|| {
            packet[..IN_PLACE].copy_from_slice(black_box(&frame));
            let (in_place, rest) = black_box(&mut packet[..]).split_at_mut(IN_PLACE);
            let aad = Aad::from(black_box(&header));
            let done = theirs.seal_in_place_scatter(
                Nonce::assume_unique_for_key(IV),
                aad,
                in_place,
                black_box(&tail),
                rest,
            );
            assert!(done.is_ok());
        }));
        open.push(timed(|| {
            received.copy_from_slice(black_box(&sealed));
            assert!(ours.open(0, black_box(&header), &mut received).is_some());
        }));
        their_open.push(timed(|| {
            received.copy_from_slice(black_box(&sealed));
            let aad = Aad::from(black_box(&header));
            let opened = theirs.open_in_place(Nonce::assume_unique_for_key(IV), aad, &mut received);
            assert!(opened.is_ok());
        }));
        copy.push(timed(|| {
            black_box(&mut received).copy_from_slice(black_box(&sealed))
        }));
    }
    let [seal, their_seal, open, their_open, copy] = times.map(undisturbed);
    [seal, their_seal, open - copy, their_open - copy]
}

/// The time that a tenth of the measurements keep below.
fn undisturbed(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}

/// Nanoseconds for each of some calls.
fn timed(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..PACKETS {
        work();
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS)
}
