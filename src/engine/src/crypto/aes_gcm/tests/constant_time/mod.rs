//! That no branch and no address depends on a secret.
//!
//! memcheck, of valgrind, follows what is undefined from instruction to instruction, and reports a branch or an address that depends on it. So key
//! and plaintext are marked as undefined, and nothing may be reported. valgrind knows the instructions of one form, that of single blocks; the
//! others are of the same source. What the compiler makes of these, `scripts/constant-time.sh` looks at.

#[allow(unsafe_code, reason = "requests to valgrind")]
mod sys;

use std::hint::black_box;
use std::process::{Command, Output};

use self::sys::{is_under_valgrind, set_defined, set_undefined};
use crate::crypto::aes_gcm::form::Form;
use crate::crypto::aes_gcm::header::AesHeader;
use crate::crypto::aes_gcm::key::AesGcm;
use crate::crypto::suite::TAG_LEN;

/// What valgrind exits with if it has reported anything.
const REPORTED: i32 = 99;
/// Whether the run under valgrind does what must be reported.
const CONTROL: &str = "TEST_SECRET_BRANCH";

/// What the outcome of opening a packet depends on: whether a packet is authentic is no secret.
pub(in crate::crypto::aes_gcm) fn told(mut difference: u128) -> u128 {
    set_defined(std::slice::from_mut(&mut difference));
    difference
}

#[test]
fn no_branch_and_no_address_depends_on_a_secret() {
    if is_under_valgrind() {
        if std::env::var_os(CONTROL).is_some() {
            branch_on_a_secret();
        } else {
            seal_and_open_secrets();
        }
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIP: valgrind is not installed");
        return;
    }
    let clean = under_valgrind(false);
    assert!(clean.status.success(), "{clean:?}");
    let said = String::from_utf8_lossy(&clean.stdout).into_owned();
    if said.contains("SKIP") {
        println!("{said}");
        return;
    }
    assert!(said.contains("1 passed"), "{said}");
    // What is to be found is found.
    assert_eq!(under_valgrind(true).status.code(), Some(REPORTED));
}

/// This test, in a process of its own.
fn under_valgrind(control: bool) -> Output {
    let mut command = Command::new("valgrind");
    command.args(["-q", "--error-exitcode=99", "--"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "--test-threads=1"]);
    command.arg("crypto::aes_gcm::tests::constant_time::no_branch_and_no_address_depends_on_a_secret");
    if control {
        command.env(CONTROL, "1");
    }
    command.output().unwrap()
}

fn seal_and_open_secrets() {
    if !Form::AesNi.is_supported() {
        println!(
            "SKIP: valgrind does not have the instructions of {} here",
            Form::AesNi.name()
        );
        return;
    }
    for key_len in [16, 32] {
        let mut key = vec![7; key_len];
        let mut iv = [3; 12];
        set_undefined(&mut key);
        set_undefined(&mut iv);
        let header = AesHeader::new(&key).unwrap();
        let key = AesGcm::new(Form::AesNi, &key, iv).unwrap();
        let mut sample = [5; 16];
        set_undefined(&mut sample);
        let mut mask = header.mask(&sample);
        set_defined(&mut mask);
        assert_ne!(mask, [0; 5], "the mask of a key that is not zeros");
        // Every length of a last block, with and without chunks before it.
        for len in (0..70).chain(90..130).chain([300, 1_443, 1_452]) {
            for in_place in [0, 13, 40, len] {
                let in_place = in_place.min(len);
                let mut plain = vec![5; len];
                set_undefined(&mut plain);
                let mut packet = plain.clone();
                packet.resize(len + TAG_LEN, 0);
                key.seal(9, &[1; 21], &mut packet, &plain[in_place..]);
                // As the peer sent it, everybody has seen it; but what it becomes is secret, since the key is.
                set_defined(&mut packet);
                let opened = key.open(9, &[1; 21], &mut packet).is_some();
                assert!(opened, "{len} bytes are opened");
                packet.truncate(len);
                set_defined(&mut packet);
                set_defined(&mut plain);
                assert_eq!(packet, plain, "what is opened is what was sealed");
                packet.resize(len + TAG_LEN, 0);
                assert!(
                    key.open(9, &[1; 21], &mut packet).is_none(),
                    "what is not authentic is refused"
                );
            }
        }
    }
}

fn branch_on_a_secret() {
    let mut secret = [1_u8; 1];
    set_undefined(&mut secret);
    if black_box(secret)[0] & 1 == 1 {
        println!("the secret is odd");
    }
}
