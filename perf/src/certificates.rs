//! Certificates: from files, or made on the spot.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rcgen::{CertifiedKey, KeyPair};
use ringway::pki_types::pem::PemObject;
use ringway::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate for this machine, with a key on the curve P-256.
pub(crate) fn self_signed() -> Result<CertifiedKey<KeyPair>> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    rcgen::generate_simple_self_signed(names).context("making a self-signed certificate")
}

/// The certificates in a PEM file: one at least.
pub(crate) fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading certificates (PEM) from {}", file.display()))?;
    ensure!(
        !found.is_empty(),
        "{} has no certificate in PEM form",
        file.display()
    );
    Ok(found)
}

/// The private key in a PEM file.
pub(crate) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file)
        .with_context(|| format!("reading a private key (PEM) from {}", file.display()))
}
