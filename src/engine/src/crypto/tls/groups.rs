//! Groups for key exchange.

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;

/// A group for the key exchange of the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyExchangeGroup {
    /// X25519MLKEM768: X25519 and ML-KEM-768 together, so that what is recorded today stays secret from a quantum computer to come. The
    /// ClientHello takes two packets.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// secp256r1 (P-256).
    Secp256r1,
    /// secp384r1 (P-384).
    Secp384r1,
}

impl KeyExchangeGroup {
    /// All groups, as they are preferred unless something else is asked for.
    pub const ALL: [KeyExchangeGroup; 4] = [
        KeyExchangeGroup::X25519MlKem768,
        KeyExchangeGroup::X25519,
        KeyExchangeGroup::Secp256r1,
        KeyExchangeGroup::Secp384r1,
    ];

    pub(super) fn of_tls(self) -> &'static dyn SupportedKxGroup {
        match self {
            KeyExchangeGroup::X25519MlKem768 => kx_group::X25519MLKEM768,
            KeyExchangeGroup::X25519 => kx_group::X25519,
            KeyExchangeGroup::Secp256r1 => kx_group::SECP256R1,
            KeyExchangeGroup::Secp384r1 => kx_group::SECP384R1,
        }
    }
}
