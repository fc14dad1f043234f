//! Certificates for examples that are their own server and client.

use std::error::Error;

use ringway::pki_types::PrivateKeyDer;
use ringway::{ClientCredentials, Identity, ServerCredentials};

/// What may fail, for whatever reason.
pub(crate) type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A certificate for this name, as a server shows it, and its client trusts it.
#[allow(dead_code, reason = "not every example needs all of it")]
pub(super) fn certificate(name: &str) -> Done<(ServerCredentials, ClientCredentials)> {
    let (identity, trusted) = identity(name)?;
    Ok((ServerCredentials::with_identity(identity), trusted))
}

/// The same as an identity, which a client may have, too.
#[allow(dead_code, reason = "not every example needs all of it")]
pub(super) fn identity(name: &str) -> Done<(Identity, ClientCredentials)> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
    let chain = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    Ok((Identity::new(chain.clone(), key), ClientCredentials::roots(chain)))
}
