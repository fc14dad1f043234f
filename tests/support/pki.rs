//! Certificates of an authority that a test makes, also such as no authority should.

use ringway::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use ringway::{ClientCredentials, Identity, ServerCredentials};

/// A certificate authority.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// A certificate with its key.
pub struct Made {
    pub certificate: CertificateDer<'static>,
    pub key: rcgen::KeyPair,
    serial: rcgen::SerialNumber,
}

impl Authority {
    /// One of this name.
    pub fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority {
            certificate,
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Made {
        self.issue_with(names, |_| ())
    }

    /// The same with changes.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut rcgen::CertificateParams)) -> Made {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let serial = rcgen::SerialNumber::from(next_serial());
        params.serial_number = Some(serial.clone());
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Made {
            certificate,
            key,
            serial,
        }
    }

    /// The list of these certificates, which are revoked.
    pub fn revoke(&self, revoked: &[&Made]) -> CertificateRevocationListDer<'static> {
        let date = rcgen::date_time_ymd;
        let revoked_certs = revoked
            .iter()
            .map(|made| rcgen::RevokedCertParams {
                serial_number: made.serial.clone(),
                revocation_time: date(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let params = rcgen::CertificateRevocationListParams {
            this_update: date(2020, 1, 1),
            next_update: date(2100, 1, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
    }

    /// A client that trusts servers of this authority.
    pub fn client(&self) -> ClientCredentials {
        ClientCredentials::roots(vec![self.root()])
    }
}

impl Made {
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    pub fn identity(&self) -> Identity {
        Identity::new(vec![self.certificate.clone()], self.private_key())
    }

    pub fn server(&self) -> ServerCredentials {
        ServerCredentials::with_identity(self.identity())
    }

    /// The same as X.509 "version 4", which some test tools make. Its signature is wrong then.
    pub fn version_4(mut self) -> Self {
        let mut der = self.certificate.to_vec();
        let at = der
            .windows(5)
            .position(|bytes| bytes == [0xa0, 3, 2, 1, 2])
            .unwrap();
        der[at + 4] = 3;
        self.certificate = CertificateDer::from(der);
        self
    }
}

fn next_serial() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
