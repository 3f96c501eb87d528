//! One participant's secure pipe: STUN, ICE-lite, DTLS, SRTP. No clock, socket or lock.

pub mod srtp;

/// An ICE user name fragment and password (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// 4 to 256 characters.
    pub ufrag: String,
    /// 22 to 256 characters.
    pub pwd: String,
}

/// Neither half is ever logged.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// What the offer says about the other end of the pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub credentials: Credentials,
    /// SHA-256 of the certificate (RFC 8122); others are refused by the negotiation.
    pub fingerprint: [u8; 32],
    /// Who sends the ClientHello.
    pub role: DtlsRole,
}

/// Our role in the DTLS handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsRole {
    /// The offer said `actpass` or `active`: the client sends the ClientHello.
    #[default]
    Server,
    /// The offer said `passive`: we send it.
    Client,
}
