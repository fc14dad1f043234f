//! Public key and subject of a certificate of which nothing else is asked.
//!
//! webpki reads certificates of the Web's PKI and no others. Where no certificate is verified, one that it does not read (X.509 "version 4",
//! say, as some test tools make them) still has a key, with which the handshake is signed.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{DigitallySignedStruct, Error};

/// Verifies a handshake's signature with the key of a certificate that may be an odd one.
pub(super) fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    match rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms) {
        Err(Error::InvalidCertificate(error)) => match public_key(certificate) {
            Some(key) => {
                rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
            }
            None => Err(Error::InvalidCertificate(error)),
        },
        result => result,
    }
}

/// The SubjectPublicKeyInfo (RFC 5280 section 4.1) of a certificate.
pub(super) fn public_key(certificate: &[u8]) -> Option<SubjectPublicKeyInfoDer<'_>> {
    let fields = Element::read(certificate)?.sequence()?.first()?.sequence()?;
    let key = fields.skip(usize::from(fields.has_version()) + SUBJECT + 1)?;
    let element = Element::read(key.0)?;
    (element.tag == SEQUENCE).then(|| SubjectPublicKeyInfoDer::from(element.whole))
}

/// The texts in the subject of a certificate, for people; empty if there are none that can be read.
pub(super) fn subject(certificate: &[u8]) -> String {
    let subject = || {
        let fields = Element::read(certificate)?.sequence()?.first()?.sequence()?;
        fields.skip(usize::from(fields.has_version()) + SUBJECT)?.first()
    };
    let mut texts = Vec::new();
    // Name is a sequence of sets of sequences of a type and a value.
    for set in subject().into_iter().flat_map(Element::children) {
        for attribute in set.children() {
            if let Some(value) = attribute.children().nth(1)
                && let Ok(text) = std::str::from_utf8(value.content)
            {
                texts.push(text.to_owned());
            }
        }
    }
    texts.join(", ")
}

/// Elements of TBSCertificate before the subject, but for the version: serial number, signature, issuer, validity.
const SUBJECT: usize = 4;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;

/// An element of DER.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The first one in `bytes`.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[tag, short], rest) = bytes.split_first_chunk()?;
        let (len, header_len) = match short {
            0..=0x7f => (usize::from(short), 2),
            // 0x80 is no length. In so many bytes that follow: no certificate is so long that it takes more.
            0x81..=0x84 => {
                let bytes = rest.get(..usize::from(short - 0x80))?;
                let len = bytes.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
                (len, 2 + bytes.len())
            }
            _ => return None,
        };
        let whole = bytes.get(..header_len.checked_add(len)?)?;
        Some(Element {
            tag,
            content: &whole[header_len..],
            whole,
        })
    }

    fn sequence(self) -> Option<Elements<'a>> {
        (self.tag == SEQUENCE).then_some(Elements(self.content))
    }

    fn children(self) -> impl Iterator<Item = Element<'a>> {
        let mut rest = self.content;
        std::iter::from_fn(move || {
            let element = Element::read(rest)?;
            rest = &rest[element.whole.len()..];
            Some(element)
        })
    }
}

/// Elements one after another.
#[derive(Clone, Copy)]
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn first(self) -> Option<Element<'a>> {
        Element::read(self.0)
    }

    /// What follows so many elements.
    fn skip(self, count: usize) -> Option<Elements<'a>> {
        (0..count).try_fold(self, |rest, _| {
            Some(Elements(&rest.0[rest.first()?.whole.len()..]))
        })
    }

    fn has_version(self) -> bool {
        self.0.first() == Some(&CONTEXT_0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate() -> (Vec<u8>, Vec<u8>) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Some Root");
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        (
            made.der().to_vec(),
            rcgen::PublicKeyData::subject_public_key_info(&key),
        )
    }

    #[test]
    fn key_and_subject_are_found_in_a_certificate_of_any_version() {
        let (mut certificate, key) = certificate();
        let version = certificate
            .windows(5)
            .position(|bytes| bytes == [0xa0, 3, 2, 1, 2])
            .unwrap();
        for number in [2, 3, 0x7f] {
            certificate[version + 4] = number;
            assert_eq!(public_key(&certificate).unwrap().as_ref(), key);
            assert!(subject(&certificate).contains("Some Root"));
        }
    }

    #[test]
    fn truncated_certificate_has_no_key() {
        let (certificate, _) = certificate();
        for len in 0..certificate.len() {
            assert!(public_key(&certificate[..len]).is_none());
        }
    }

    proptest! {
        #[test]
        fn mutated_certificate_never_panics(changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
            let (mut certificate, _) = certificate();
            for (at, byte) in changes {
                let at = usize::from(at) % certificate.len();
                certificate[at] = byte;
            }
            let _ = (public_key(&certificate), subject(&certificate));
        }
    }
}
