//! Encrypted Client Hello of a client (RFC 9849).

use rustls::client::{EchConfig, EchGreaseConfig, EchMode};
use rustls::crypto::aws_lc_rs::hpke::ALL_SUPPORTED_SUITES;
use rustls::internal::msgs::codec::Codec;
use rustls::pki_types::EchConfigListBytes;
use rustls::{Error, PeerIncompatible};

use super::error::TlsConfigError;

/// What a client does about Encrypted Client Hello.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Ech {
    /// Nothing.
    #[default]
    Off,
    /// It sends something that looks like it, so that those who do need not stand out.
    Grease,
    /// The name of the server and the application protocols are encrypted with the first of these configurations that can be used: an
    /// ECHConfigList, as the `ech` parameter of HTTPS records in the DNS has it. A server that cannot decrypt them is refused
    /// ([`EchRejected`]).
    Configurations(Vec<u8>),
}

impl Ech {
    pub(super) fn mode(self) -> Result<Option<EchMode>, TlsConfigError> {
        let result = match self {
            Ech::Off => return Ok(None),
            Ech::Grease => {
                let suite = ALL_SUPPORTED_SUITES[0];
                // Nobody has the private key, which goes at once.
                suite
                    .generate_key_pair()
                    .map(|(key, _)| EchMode::Grease(EchGreaseConfig::new(suite, key)))
            }
            Ech::Configurations(list) => {
                EchConfig::new(EchConfigListBytes::from(list), ALL_SUPPORTED_SUITES).map(EchMode::Enable)
            }
        };
        result.map(Some).map_err(TlsConfigError::Ech)
    }
}

/// What became of Encrypted Client Hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EchOutcome {
    /// None was sent, or something that looks like it.
    NotOffered,
    /// The server has decrypted it.
    Accepted,
}

/// The server did not decrypt the Encrypted Client Hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EchRejected {
    /// Configurations with which another attempt may succeed (an ECHConfigList for [`Ech::Configurations`]): the server has authenticated itself
    /// for the public name of the ones that were used. `None`: it has none, and ECH should not be tried with it (RFC 9849 section 6.1.6).
    pub retry_configurations: Option<Vec<u8>>,
}

impl EchRejected {
    pub(super) fn of(error: &Error) -> Option<EchRejected> {
        let Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(retry)) = error
        else {
            return None;
        };
        Some(EchRejected {
            retry_configurations: retry.as_ref().map(Codec::get_encoding),
        })
    }
}
