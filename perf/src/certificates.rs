//! Certificates and keys: from files, or made on the spot.

use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{CertifiedKey, KeyPair};
use ringway::pki_types::pem::PemObject;
use ringway::pki_types::{CertificateDer, PrivateKeyDer};
use ringway::{ClientCredentials, ServerCredentials};

use crate::args::{ClientArgs, ServerArgs};

pub(crate) fn server(args: &ServerArgs) -> Result<ServerCredentials> {
    let mut credentials = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .with_context(|| format!("reading a private key (PEM) from {}", key.display()))?;
            ServerCredentials::new(certificates(cert)?, private)
        }
        _ => {
            let made = self_signed()?;
            let key =
                PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
            ServerCredentials::new(vec![made.cert.der().clone()], key)
        }
    };
    credentials.cipher_suites = args.common.cipher_suites();
    Ok(credentials)
}

/// A certificate for this machine, with a key on the curve P-256.
pub(crate) fn self_signed() -> Result<CertifiedKey<KeyPair>> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    rcgen::generate_simple_self_signed(names).context("making a self-signed certificate")
}

pub(crate) fn client(args: &ClientArgs) -> Result<ClientCredentials> {
    let mut credentials = match &args.ca {
        Some(file) => ClientCredentials::roots(certificates(file)?),
        None => ClientCredentials::no_verification(),
    };
    credentials.cipher_suites = args.common.cipher_suites();
    Ok(credentials)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading certificates (PEM) from {}", file.display()))?;
    anyhow::ensure!(
        !found.is_empty(),
        "{} has no certificate in PEM form",
        file.display()
    );
    Ok(found)
}
