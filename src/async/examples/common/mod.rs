//! What the examples have in common.
#![allow(dead_code, reason = "not every example needs all of it")]

use std::error::Error;

use ringway::pki_types::{CertificateDer, PrivateKeyDer};
use ringway_async::ringway;

pub(crate) type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A certificate that nobody but these examples trusts: the chain, and its key.
pub(crate) fn certificate(name: &str) -> Done<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    Ok((vec![made.cert.der().clone()], key))
}

/// What a server and a client need, and the settings of both.
pub(crate) fn configurations(
    alpn: &[u8],
    settings: ringway::Settings,
) -> Done<(
    std::sync::Arc<ringway::Configuration>,
    std::sync::Arc<ringway::Configuration>,
)> {
    let (chain, key) = certificate("localhost")?;
    let credentials = ringway::ServerCredentials::new(chain.clone(), key);
    let server = ringway::Configuration::server(&[alpn], settings.clone(), credentials)?;
    let trusted = ringway::ClientCredentials::roots(chain);
    Ok((
        server,
        ringway::Configuration::client(&[alpn], settings, trusted)?,
    ))
}
