//! The server's DTLS certificate: self-signed, made anew by each process. Nobody verifies its names; what counts
//! is that its fingerprint stands in the answer, which came over an authenticated channel (RFC 8122).

use std::sync::Arc;

/// An ECDSA P-256 key with its certificate, shared by all transports: the handshake signs with it, and one key
/// for a process spares every join the making of one. Cloning is cheap.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    pair: dimpl::DtlsCertificate,
    fingerprint: [u8; 32],
    /// The handshake's settings, equal for all transports.
    config: Arc<dimpl::Config>,
}

/// The system's random numbers or key generation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a DTLS certificate: {0}")]
pub struct CertificateError(String);

impl Certificate {
    /// Makes a key and a certificate, valid for a year; browsers do not look at the dates.
    ///
    /// # Errors
    /// When key generation fails: the process cannot serve.
    pub fn generate() -> Result<Self, CertificateError> {
        let pair = dimpl::certificate::generate_self_signed_certificate()
            .map_err(|error| CertificateError(error.to_string()))?;
        let config = super::dtls::config().map_err(|error| CertificateError(error.to_string()))?;
        let fingerprint = fingerprint(&pair.certificate);
        Ok(Self(Arc::new(Inner { pair, fingerprint, config: Arc::new(config) })))
    }

    /// SHA-256 of the certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint
    }

    /// The value of `a=fingerprint` after `sha-256 `: 32 pairs of upper-case digits with colons between.
    #[must_use]
    pub fn fingerprint_sdp(&self) -> String {
        dimpl::certificate::format_fingerprint(&self.0.fingerprint)
    }

    pub(super) fn pair(&self) -> dimpl::DtlsCertificate {
        self.0.pair.clone()
    }

    pub(super) fn config(&self) -> Arc<dimpl::Config> {
        self.0.config.clone()
    }
}

/// The key is never shown.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

/// SHA-256 of a certificate in DER.
pub(super) fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest.as_ref());
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_has_the_form_of_sdp() {
        let certificate = Certificate::generate().expect("generates");
        let text = certificate.fingerprint_sdp();
        assert_eq!(text.len(), 32 * 3 - 1);
        let bytes: Vec<u8> = text.split(':').map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect();
        assert_eq!(bytes, certificate.fingerprint());
        assert_eq!(text, text.to_uppercase());
    }

    #[test]
    fn each_process_has_its_own() {
        let (one, two) =
            (Certificate::generate().expect("generates"), Certificate::generate().expect("generates"));
        assert_ne!(one.fingerprint(), two.fingerprint());
        assert_eq!(one.fingerprint(), one.clone().fingerprint());
    }
}
