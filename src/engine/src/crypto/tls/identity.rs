//! Certificates that we show, with their keys: by name where there are several.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};

use super::error::TlsConfigError;
use super::lenient;

/// A certificate chain and the key of its first certificate.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Key,
}

enum Key {
    Der(PrivateKeyDer<'static>),
    Application(Arc<dyn SigningKey>),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl From<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> for Identity {
    fn from((chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)) -> Self {
        Identity::new(chain, key)
    }
}

impl Identity {
    /// A chain (DER, end entity first) and its private key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Identity {
            chain,
            key: Key::Der(key),
        }
    }

    /// A chain whose key the application keeps, in a hardware module, say. Signatures are asked for on worker threads, one in each handshake,
    /// and other connections of the thread wait for them.
    pub fn with_signing_key(chain: Vec<CertificateDer<'static>>, key: Arc<dyn SigningKey>) -> Self {
        Identity {
            chain,
            key: Key::Application(key),
        }
    }

    /// The first certificate of the chain.
    pub(super) fn end_entity(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    /// The chain is shown as it was given, whether or not others can read it: what counts is that the key is that of the first certificate.
    pub(super) fn certified(self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsConfigError> {
        let end_entity = self.chain.first().ok_or(Error::NoCertificatesPresented)?;
        let key = match self.key {
            Key::Der(key) => provider.key_provider.load_private_key(key)?,
            Key::Application(key) => key,
        };
        let certified = lenient::public_key(end_entity).ok_or(TlsConfigError::NoPublicKey)?;
        // A key that does not tell is taken at its word.
        if key.public_key().is_some_and(|own| own != certified) {
            return Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch).into());
        }
        Ok(Arc::new(CertifiedKey::new(self.chain, key)))
    }
}

/// Which certificate a server shows.
pub(super) enum ServerIdentities {
    /// One to everybody, or by the name that the client asks for.
    Named {
        names: Vec<(String, Identity)>,
        other: Option<Identity>,
    },
    /// As the application decides.
    Resolver(Arc<dyn ResolvesServerCert>),
}

impl ServerIdentities {
    pub(super) fn resolver(
        self,
        provider: &CryptoProvider,
    ) -> Result<Arc<dyn ResolvesServerCert>, TlsConfigError> {
        let (names, other) = match self {
            ServerIdentities::Resolver(resolver) => return Ok(resolver),
            ServerIdentities::Named { names, other } => (names, other),
        };
        let mut by_name = HashMap::new();
        for (name, identity) in names {
            let name = name.to_ascii_lowercase();
            let base = name.strip_prefix("*.").unwrap_or(&name);
            if base.is_empty() || base.contains('*') {
                return Err(TlsConfigError::ServerName(name));
            }
            by_name.insert(name, identity.certified(provider)?);
        }
        let other = other.map(|identity| identity.certified(provider)).transpose()?;
        Ok(Arc::new(ByName { by_name, other }))
    }
}

/// The certificate for the name that the client asks for.
#[derive(Debug)]
struct ByName {
    /// By names in small letters; `*.` stands for one label.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// For all other names, and for clients that ask for none.
    other: Option<Arc<CertifiedKey>>,
}

impl ByName {
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = match hello.server_name() {
            Some(name) if !self.by_name.is_empty() => self.find(name),
            _ => None,
        };
        named.or(self.other.as_ref()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str) -> Identity {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Identity::new(vec![made.cert.der().clone()], key)
    }

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(crate::crypto::suite::provider(
            &crate::crypto::suite::CipherSuite::ALL,
        ))
    }

    #[test]
    fn certificate_is_that_of_the_name_or_of_its_wildcard_and_case_does_not_matter() {
        let certified = |name| identity(name).certified(&provider()).unwrap();
        let resolver = ByName {
            by_name: [
                ("a.example".to_owned(), certified("a.example")),
                ("*.b.example".to_owned(), certified("*.b.example")),
            ]
            .into(),
            other: None,
        };
        let found = |name| resolver.find(name).map(|key| key.cert.clone());
        let of = |name: &str| Some(resolver.by_name[name].cert.clone());
        assert_eq!(found("a.example"), of("a.example"));
        assert_eq!(found("A.Example"), of("a.example"));
        assert_eq!(found("x.b.example"), of("*.b.example"));
        assert_eq!(found("X.B.EXAMPLE"), of("*.b.example"));
        for other in ["b.example", "x.y.b.example", "x.a.example", "example", ""] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn key_of_another_certificate_is_refused_and_so_is_what_is_no_certificate() {
        let (mut one, two) = (identity("one"), identity("two"));
        one.key = two.key;
        let error = one.certified(&provider()).unwrap_err();
        assert!(error.to_string().contains("KeyMismatch"), "{error}");
        let Identity { key, .. } = identity("three");
        let junk = Identity {
            chain: vec![CertificateDer::from(vec![1, 2, 3])],
            key,
        };
        assert!(matches!(
            junk.certified(&provider()),
            Err(TlsConfigError::NoPublicKey)
        ));
        let empty = Identity {
            chain: Vec::new(),
            ..identity("four")
        };
        assert!(empty.certified(&provider()).is_err());
    }
}
