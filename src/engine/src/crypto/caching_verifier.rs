//! A verifier of certificates that remembers which chains it has verified a moment ago.
//!
//! A client that opens many connections to a server is shown the same chain each time, and the signatures in it take a third of the client's
//! part of a handshake. They do not change; what does is the time, and with it whether a certificate still holds, so that a chain is
//! remembered for seconds only. That the server has the key is proven anew in each handshake.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// Asks another verifier, and remembers its approval.
#[derive(Debug)]
pub(super) struct CachingVerifier {
    verifier: Arc<dyn ServerCertVerifier>,
    /// The last ones, newest last. Taken for the length of a comparison, once in a handshake.
    chains: Mutex<Vec<VerifiedChain>>,
}

#[derive(Debug)]
struct VerifiedChain {
    chain: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
    ocsp: Vec<u8>,
    since: UnixTime,
}

impl VerifiedChain {
    fn is(&self, chain: &[&CertificateDer<'_>], name: &ServerName<'_>, ocsp: &[u8], now: UnixTime) -> bool {
        let age = now.as_secs().checked_sub(self.since.as_secs());
        age.is_some_and(|age| age < REMEMBERED_SECS)
            && self.name == *name
            && self.ocsp == ocsp
            && self.chain.iter().eq(chain.iter().copied())
    }
}

impl CachingVerifier {
    pub(super) fn new(verifier: Arc<dyn ServerCertVerifier>) -> Self {
        CachingVerifier {
            verifier,
            chains: Mutex::new(Vec::new()),
        }
    }
}

impl ServerCertVerifier for CachingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
        let chains = || self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if chains()
            .iter()
            .any(|verified| verified.is(&chain, name, ocsp, now))
        {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self
            .verifier
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)?;
        let mut chains = chains();
        if chains.len() >= REMEMBERED_MAX {
            chains.remove(0);
        }
        let chain = chain
            .into_iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        chains.push(VerifiedChain {
            chain,
            name: name.to_owned(),
            ocsp: ocsp.to_vec(),
            since: now,
        });
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// A certificate that ends meanwhile is taken for so long at most.
const REMEMBERED_SECS: u64 = 10;
/// Chains that are remembered: of as many servers at a time.
const REMEMBERED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Approves of certificates that begin with 1, and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl ServerCertVerifier for Counting {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if end_entity[0] == 1 {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(Error::General("bad".to_owned()))
            }
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::DecryptError)
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::DecryptError)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            Vec::new()
        }
    }

    #[test]
    fn a_good_chain_is_verified_once_in_ten_seconds_and_a_bad_or_another_one_each_time() {
        let counting = Arc::new(Counting::default());
        let verifier = CachingVerifier::new(Arc::clone(&counting) as Arc<dyn ServerCertVerifier>);
        let verify = |first: u8, issuer: u8, name: &str, ocsp: &[u8], secs: u64| {
            let before = counting.0.load(Ordering::Relaxed);
            let result = verifier.verify_server_cert(
                &CertificateDer::from(vec![first, 7]),
                &[CertificateDer::from(vec![issuer])],
                &ServerName::try_from(name).unwrap(),
                ocsp,
                UnixTime::since_unix_epoch(Duration::from_secs(secs)),
            );
            (result.is_ok(), counting.0.load(Ordering::Relaxed) - before)
        };
        assert_eq!(verify(1, 2, "a", b"", 100), (true, 1));
        assert_eq!(verify(1, 2, "a", b"", 109), (true, 0));
        assert_eq!(verify(1, 2, "a", b"", 110), (true, 1));
        // Of another name, with another issuer, with another word of the issuer, before it was verified.
        assert_eq!(verify(1, 2, "b", b"", 110), (true, 1));
        assert_eq!(verify(1, 3, "a", b"", 110), (true, 1));
        assert_eq!(verify(1, 2, "a", b"revoked", 110), (true, 1));
        assert_eq!(verify(1, 2, "a", b"", 99), (true, 1));
        for _ in 0..2 {
            assert_eq!(verify(0, 2, "a", b"", 110), (false, 1));
        }
        // As many as it remembers push the first ones out.
        for issuer in 100..100 + REMEMBERED_MAX as u8 {
            assert_eq!(verify(1, issuer, "a", b"", 111), (true, 1));
        }
        assert_eq!(verify(1, 2, "a", b"", 111), (true, 1));
    }
}
