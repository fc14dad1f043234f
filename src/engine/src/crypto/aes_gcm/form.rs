//! Which form of AES-GCM packets are protected with.

use std::ffi::OsStr;
use std::sync::LazyLock;

use thiserror::Error;

#[cfg(all(feature = "fused_aes_gcm", target_arch = "aarch64"))]
use super::vectors::Neon;
#[cfg(feature = "fused_aes_gcm")]
use super::vectors::Vectors;
#[cfg(all(feature = "fused_aes_gcm", target_arch = "x86_64"))]
use super::vectors::{AesNi, Avx512, Vaes256};
use crate::crypto::is_fips;

/// A form of our AES-GCM: the instructions that it is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// VAES and VPCLMULQDQ with AVX-512: four blocks at a time.
    Avx512,
    /// VAES and VPCLMULQDQ with AVX2: two blocks at a time.
    Vaes256,
    /// AES-NI and PCLMULQDQ with AVX: one block at a time.
    AesNi,
    /// AES and PMULL of ARMv8 with NEON: one block at a time.
    Neon,
}

/// What the environment variable `RINGWAY_AES_GCM` asks for cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FormError {
    /// Nothing is named so.
    #[error("RINGWAY_AES_GCM: there is no form {0:?} of AES-GCM: forms are {names}; without the variable the fastest is chosen", names = names())]
    Unknown(String),
    /// The processor, or the build, does not have it.
    #[error(
        "RINGWAY_AES_GCM: this processor, or this build, does not have {0:?}: without the variable the fastest form is chosen"
    )]
    NotSupported(&'static str),
}

/// The name of aws-lc's AES-GCM.
const AWS_LC: &str = "aws_lc";

impl Form {
    /// Fastest first.
    pub const ALL: [Form; 4] = [Form::Avx512, Form::Vaes256, Form::AesNi, Form::Neon];

    /// As `RINGWAY_AES_GCM` names it.
    pub fn name(self) -> &'static str {
        match self {
            Form::Avx512 => "avx512",
            Form::Vaes256 => "vaes256",
            Form::AesNi => "aesni",
            Form::Neon => "neon",
        }
    }

    /// It is built, and this processor has the instructions. No form is where aws-lc is its FIPS module: that does all cryptography.
    pub fn is_supported(self) -> bool {
        if is_fips() {
            return false;
        }
        match self {
            #[cfg(all(feature = "fused_aes_gcm", target_arch = "x86_64"))]
            Form::Avx512 => Avx512::detect().is_some(),
            #[cfg(all(feature = "fused_aes_gcm", target_arch = "x86_64"))]
            Form::Vaes256 => Vaes256::detect().is_some(),
            #[cfg(all(feature = "fused_aes_gcm", target_arch = "x86_64"))]
            Form::AesNi => AesNi::detect().is_some(),
            #[cfg(all(feature = "fused_aes_gcm", target_arch = "aarch64"))]
            Form::Neon => Neon::detect().is_some(),
            _ => false,
        }
    }

    /// The form that packets are protected with. `None`: aws-lc does it.
    ///
    /// It is what `RINGWAY_AES_GCM` names, and unless that is set the fastest that is supported. If it names what cannot be had, the log says so.
    pub fn chosen() -> Option<Form> {
        static CHOSEN: LazyLock<Option<Form>> = LazyLock::new(|| {
            asked_for().unwrap_or_else(|error| {
                tracing::error!("{error}");
                fastest()
            })
        });
        *CHOSEN
    }
}

/// What `RINGWAY_AES_GCM` asks for can be had, or it is not set.
///
/// # Errors
///
/// There is no such form, or not on this processor.
pub fn check_variable() -> Result<(), FormError> {
    asked_for().map(|_| ())
}

fn asked_for() -> Result<Option<Form>, FormError> {
    match std::env::var_os("RINGWAY_AES_GCM") {
        Some(name) => named(&name),
        None => Ok(fastest()),
    }
}

fn named(name: &OsStr) -> Result<Option<Form>, FormError> {
    if name == AWS_LC {
        return Ok(None);
    }
    let form = Form::ALL.into_iter().find(|form| name == form.name());
    let form = form.ok_or_else(|| FormError::Unknown(name.to_string_lossy().into_owned()))?;
    if form.is_supported() {
        Ok(Some(form))
    } else {
        Err(FormError::NotSupported(form.name()))
    }
}

fn fastest() -> Option<Form> {
    Form::ALL.into_iter().find(|form| form.is_supported())
}

fn names() -> String {
    Form::ALL
        .map(Form::name)
        .into_iter()
        .chain([AWS_LC])
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_had_by_its_name_or_else_an_error_says_why_not() {
        for form in Form::ALL {
            let expected = if form.is_supported() {
                Ok(Some(form))
            } else {
                Err(FormError::NotSupported(form.name()))
            };
            assert_eq!(named(OsStr::new(form.name())), expected);
        }
        assert_eq!(named(OsStr::new("aws_lc")), Ok(None));
        let error = named(OsStr::new("AVX-512")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "RINGWAY_AES_GCM: there is no form \"AVX-512\" of AES-GCM: forms are avx512, vaes256, aesni, neon, aws_lc; without the \
             variable the fastest is chosen"
        );
    }

    #[test]
    fn what_the_variable_names_is_chosen() {
        if let Some(name) = std::env::var_os("RINGWAY_AES_GCM") {
            assert_eq!(Ok(Form::chosen()), named(&name));
        } else {
            assert_eq!(Form::chosen(), fastest());
        }
    }
}
