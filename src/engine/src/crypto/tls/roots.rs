//! Trusted roots, of which some may be odd.

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::error::{TlsConfigError, UnusableRoot};
use super::lenient;

/// What is to be done with root certificates that cannot be used. Stores of operating systems have some.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UnusableRoots {
    /// They are named ([`UnusableRoot`]) and left out; the others are trusted.
    #[default]
    Skip,
    /// The configuration is refused.
    Refuse,
}

/// What certificates are verified against.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// The store, and what is not in it.
    pub(super) fn store(
        self,
        unusable: UnusableRoots,
    ) -> Result<(RootCertStore, Vec<UnusableRoot>), TlsConfigError> {
        let mut store = RootCertStore { roots: self.anchors };
        let mut left_out = Vec::new();
        for (index, certificate) in self.certificates.into_iter().enumerate() {
            let subject = lenient::subject(&certificate);
            if let Err(error) = store.add(certificate) {
                let root = UnusableRoot {
                    index,
                    subject,
                    reason: error.to_string(),
                };
                if unusable == UnusableRoots::Refuse {
                    return Err(TlsConfigError::UnusableRoot(root));
                }
                tracing::warn!(%root, "a root certificate cannot be used");
                left_out.push(root);
            }
        }
        if store.is_empty() {
            return Err(match left_out.into_iter().next() {
                Some(root) => TlsConfigError::UnusableRoot(root),
                None => TlsConfigError::NoRoots,
            });
        }
        Ok((store, left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    /// X.509 "version 4", which webpki does not read.
    fn odd(name: &str) -> CertificateDer<'static> {
        let mut der = root(name).to_vec();
        let at = der
            .windows(5)
            .position(|bytes| bytes == [0xa0, 3, 2, 1, 2])
            .unwrap();
        der[at + 4] = 3;
        CertificateDer::from(der)
    }

    #[test]
    fn odd_root_is_named_and_the_others_are_trusted() {
        let roots = Roots {
            certificates: vec![root("One"), odd("Odd One"), root("Two")],
            anchors: Vec::new(),
        };
        let (store, left_out) = roots.clone().store(UnusableRoots::Skip).unwrap();
        assert_eq!(store.len(), 2);
        assert_eq!((left_out.len(), left_out[0].index), (1, 1));
        assert!(left_out[0].subject.contains("Odd One") && !left_out[0].reason.is_empty());
        let error = roots.store(UnusableRoots::Refuse).unwrap_err().to_string();
        assert!(
            error.contains("Odd One") && error.contains("certificate 1"),
            "{error}"
        );
    }

    #[test]
    fn anchors_are_taken_beside_certificates_and_something_must_be_left() {
        let certificate = root("One");
        let anchor = webpki_anchor(&certificate);
        let roots = Roots {
            certificates: Vec::new(),
            anchors: vec![anchor],
        };
        assert_eq!(roots.store(UnusableRoots::Refuse).unwrap().0.len(), 1);
        assert!(matches!(
            Roots::default().store(UnusableRoots::Skip),
            Err(TlsConfigError::NoRoots)
        ));
        let roots = Roots {
            certificates: vec![odd("Odd One")],
            anchors: Vec::new(),
        };
        assert!(matches!(
            roots.store(UnusableRoots::Skip),
            Err(TlsConfigError::UnusableRoot(_))
        ));
    }

    fn webpki_anchor(certificate: &CertificateDer<'static>) -> TrustAnchor<'static> {
        let mut store = RootCertStore::empty();
        store.add(certificate.clone()).unwrap();
        store.roots.remove(0)
    }
}
