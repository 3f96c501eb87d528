//! Stands in for SRTP until its branch is merged.
use super::DtlsRole;
use crate::id::Ssrc;
use crate::observe::reason::Reason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Aes128CmSha1_80,
    AeadAes128Gcm,
    AeadAes256Gcm,
}
pub struct MasterKey;
pub fn split(_: Profile, _: &[u8], _: DtlsRole) -> Option<(MasterKey, MasterKey)> {
    Some((MasterKey, MasterKey))
}
pub struct Opener;
impl Opener {
    pub fn new(_: Profile, _: &MasterKey) -> Self {
        Self
    }
    pub fn open_rtp(&mut self, _: &mut [u8], _: usize, _: Ssrc, _: u16) -> Result<usize, Reason> {
        Err(Reason::SrtpAuthentication)
    }
    pub fn open_rtcp(&mut self, _: &mut [u8]) -> Result<usize, Reason> {
        Err(Reason::SrtpAuthentication)
    }
}
pub struct Sealer;
impl Sealer {
    pub fn new(_: Profile, _: &MasterKey) -> Self {
        Self
    }
}
