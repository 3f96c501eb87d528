//! Stand-in until the real negotiation is merged.
use std::net::SocketAddr;

use crate::observe::reason::Reason;
use crate::room::Media;
use crate::transport::{Credentials, Remote};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub hint: String,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Limits {
    pub text: usize,
    pub sections: usize,
    pub sending: usize,
    pub audio_slots: usize,
    pub video_slots: usize,
}
#[derive(Clone, Debug)]
pub struct Environment {
    pub candidates: Vec<SocketAddr>,
    pub fingerprint: String,
    pub worker: u8,
    pub limits: Limits,
}
#[derive(Clone, Debug)]
pub struct Answered {
    pub sdp: String,
    pub media: Media,
    pub remote: Remote,
    pub restart: bool,
}
#[derive(Debug)]
pub struct Negotiator(Credentials);
impl Negotiator {
    #[must_use]
    pub fn new(_: &Environment) -> Self {
        Self(Credentials { ufrag: String::new(), pwd: String::new() })
    }
    #[must_use]
    pub fn local(&self) -> &Credentials {
        &self.0
    }
    /// # Errors
    /// Always.
    pub fn answer(&mut self, _: &str) -> Result<Answered, Refusal> {
        Err(Refusal { reason: Reason::SdpUnsupported, hint: String::new() })
    }
}
