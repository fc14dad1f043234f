//! Providers of cryptography: ours, and what may come of others.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::error::TlsConfigError;
use super::groups::KeyExchangeGroup;
use crate::crypto::suite::{self, CipherSuite};

/// Where the packet keys of a configuration's sessions come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeySource {
    /// rustls hands them out as bytes, since its suites are ours.
    Suites,
    /// They are derived from the secrets that rustls logs.
    Secrets,
}

impl KeySource {
    /// For sessions with this provider.
    pub(super) fn of(provider: &CryptoProvider) -> Result<KeySource, TlsConfigError> {
        let mut any = false;
        for suite in suite::quic_suites(provider) {
            any = true;
            if CipherSuite::of_tls(suite.common.suite).is_none() {
                return Err(TlsConfigError::UnsupportedSuite(suite.common.suite));
            }
        }
        match (any, suite::carries_keys(provider)) {
            (false, _) => Err(TlsConfigError::NoQuicSuite),
            (true, true) => Ok(KeySource::Suites),
            (true, false) => Ok(KeySource::Secrets),
        }
    }
}

pub(super) fn provider_of(
    suites: &[CipherSuite],
    groups: &[KeyExchangeGroup],
) -> Result<Arc<CryptoProvider>, TlsConfigError> {
    if suites.is_empty() {
        return Err(TlsConfigError::NoCipherSuite);
    }
    if groups.is_empty() {
        return Err(TlsConfigError::NoGroup);
    }
    let kx_groups = groups.iter().map(|group| group.of_tls()).collect();
    Ok(Arc::new(CryptoProvider {
        kx_groups,
        ..suite::provider(suites)
    }))
}
