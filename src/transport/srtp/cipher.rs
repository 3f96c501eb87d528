//! One prepared session key: what a profile does to the bytes of a packet. Which index a packet has, and whether
//! it may be used, is decided by the callers.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::{Profile, RTCP_CLEAR_LEN, SRTCP_INDEX_LEN};
use crate::id::Ssrc;
use crate::observe::reason::Reason;

const GCM_TAG_LEN: usize = Profile::AeadAes128Gcm.tag_len();
const SHA1_TAG_LEN: usize = Profile::Aes128CmSha1_80.tag_len();

/// The E flag of SRTCP: the packet is encrypted and not only authenticated (RFC 3711 §3.4).
pub(super) const ENCRYPTED: u32 = 1 << 31;

pub(super) enum Cipher {
    Gcm(Gcm),
    /// Boxed because it is rare, and larger than the other.
    Cm(Box<Cm>),
}

/// AES-GCM (RFC 7714): the tag follows the ciphertext, in RTCP before the index.
pub(super) struct Gcm {
    key: LessSafeKey,
    salt: u128,
}

/// AES in counter mode with HMAC-SHA1 (RFC 3711): the tag stands at the end, in RTCP after the index.
pub(super) struct Cm {
    key: EncryptingKey,
    mac: hmac::Key,
    salt: u128,
}

impl Cipher {
    /// Slices of other lengths than the profile's are a mistake of the caller, who has them from
    /// [`super::keys`].
    pub(super) fn new(profile: Profile, key: &[u8], salt: &[u8], auth: &[u8]) -> Self {
        let salt = salt.iter().fold(0, |salt, &byte| salt << 8 | u128::from(byte));
        let algorithm = match profile {
            Profile::Aes128CmSha1_80 => {
                let key = UnboundCipherKey::new(&AES_128, key)
                    .and_then(EncryptingKey::ctr)
                    .expect("the key has the profile's length");
                let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, auth);
                return Self::Cm(Box::new(Cm { key, mac, salt }));
            }
            Profile::AeadAes128Gcm => &AES_128_GCM,
            Profile::AeadAes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).expect("the key has the profile's length");
        Self::Gcm(Gcm { key: LessSafeKey::new(key), salt })
    }

    #[inline]
    pub(super) fn tag_len(&self) -> usize {
        match self {
            Self::Gcm(_) => GCM_TAG_LEN,
            Self::Cm(_) => SHA1_TAG_LEN,
        }
    }

    /// Seals `payload` and then `tail` behind the header that already stands in `out`, which is exactly as long
    /// as header, payload, tail and tag.
    #[inline]
    pub(super) fn seal_rtp(
        &self,
        (ssrc, index): (Ssrc, u64),
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
        tail: &[u8],
    ) -> Result<(), Reason> {
        match self {
            Self::Gcm(gcm) => {
                let (header, body) = out.split_at_mut(header_len);
                let (body, tail_and_tag) = body.split_at_mut(payload.len());
                let (nonce, aad) = (gcm.nonce(ssrc, index), Aad::from(&*header));
                gcm.key
                    .seal_out_of_place_scatter(nonce, aad, payload, body, tail, tail_and_tag)
                    .map_err(|_| Reason::SealNoRoom)
            }
            Self::Cm(cm) => {
                let (body, tail_and_tag) = out[header_len..].split_at_mut(payload.len());
                body.copy_from_slice(payload);
                tail_and_tag[..tail.len()].copy_from_slice(tail);
                cm.seal_rtp(ssrc, index, out, header_len)
            }
        }
    }

    /// As [`seal_rtp`](Self::seal_rtp), with the payload already in `out` behind the header.
    #[inline]
    pub(super) fn seal_rtp_in_place(
        &self,
        (ssrc, index): (Ssrc, u64),
        out: &mut [u8],
        header_len: usize,
    ) -> Result<(), Reason> {
        match self {
            Self::Gcm(gcm) => {
                let (header, body) = out.split_at_mut(header_len);
                let (body, tag) = body.split_at_mut(body.len() - GCM_TAG_LEN);
                gcm.key
                    .seal_in_place_scatter(gcm.nonce(ssrc, index), Aad::from(&*header), body, &[], tag)
                    .map_err(|_| Reason::SealNoRoom)
            }
            Self::Cm(cm) => cm.seal_rtp(ssrc, index, out, header_len),
        }
    }

    /// Opens in place; the payload is everything between header and tag, which the caller made sure is there.
    #[inline]
    pub(super) fn open_rtp(
        &self,
        (ssrc, index): (Ssrc, u64),
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<(), Reason> {
        let tag_at = packet.len() - self.tag_len();
        match self {
            Self::Gcm(gcm) => {
                let (header, body) = packet.split_at_mut(header_len);
                let (body, tag) = body.split_at_mut(tag_at - header_len);
                gcm.key
                    .open_in_place_separate_tag(gcm.nonce(ssrc, index), Aad::from(&*header), tag, body)
                    .map_err(|_| Reason::SrtpAuthentication)?;
                Ok(())
            }
            Self::Cm(cm) => {
                let (packet, tag) = packet.split_at_mut(tag_at);
                cm.verify(packet, &roll_over(index), tag)?;
                cm.keystream(ssrc, index, &mut packet[header_len..]).map_err(|()| Reason::SrtpAuthentication)
            }
        }
    }

    /// Seals the compound packet that stands in `out`, which is exactly as long as that, tag and index.
    pub(super) fn seal_rtcp(&self, ssrc: Ssrc, index: u32, out: &mut [u8]) -> Result<(), Reason> {
        let trailer = (ENCRYPTED | index).to_be_bytes();
        match self {
            Self::Gcm(gcm) => {
                let (out, end) = out.split_at_mut(out.len() - SRTCP_INDEX_LEN);
                end.copy_from_slice(&trailer);
                let (header, body) = out.split_at_mut(RTCP_CLEAR_LEN);
                let (body, tag) = body.split_at_mut(body.len() - GCM_TAG_LEN);
                let aad = Aad::from(gcm_rtcp_aad(header, trailer));
                gcm.key
                    .seal_in_place_scatter(gcm.nonce(ssrc, u64::from(index)), aad, body, &[], tag)
                    .map_err(|_| Reason::SealNoRoom)
            }
            Self::Cm(cm) => {
                let (packet, tag) = out.split_at_mut(out.len() - SHA1_TAG_LEN);
                let (plain, end) = packet.split_at_mut(packet.len() - SRTCP_INDEX_LEN);
                end.copy_from_slice(&trailer);
                cm.keystream(ssrc, u64::from(index), &mut plain[RTCP_CLEAR_LEN..])
                    .map_err(|()| Reason::SealNoRoom)?;
                tag.copy_from_slice(&cm.tag(packet, &[])[..SHA1_TAG_LEN]);
                Ok(())
            }
        }
    }

    /// The E flag and index of an SRTCP packet that is long enough to have them.
    pub(super) fn rtcp_trailer(&self, packet: &[u8]) -> u32 {
        let end = match self {
            Self::Gcm(_) => packet.len(),
            Self::Cm(_) => packet.len() - SHA1_TAG_LEN,
        };
        let mut trailer = [0; SRTCP_INDEX_LEN];
        trailer.copy_from_slice(&packet[end - SRTCP_INDEX_LEN..end]);
        u32::from_be_bytes(trailer)
    }

    /// Opens in place; the compound packet is everything before tag and index, which the caller made sure are
    /// there. `trailer` is [`rtcp_trailer`](Self::rtcp_trailer) of the packet.
    pub(super) fn open_rtcp(&self, ssrc: Ssrc, trailer: u32, packet: &mut [u8]) -> Result<(), Reason> {
        let plain_len = packet.len() - self.tag_len() - SRTCP_INDEX_LEN;
        let index = u64::from(trailer & !ENCRYPTED);
        let encrypted = trailer & ENCRYPTED != 0;
        match self {
            Self::Gcm(gcm) => gcm.open_rtcp(ssrc, trailer, &mut packet[..plain_len + GCM_TAG_LEN]),
            Self::Cm(cm) => {
                let (packet, tag) = packet.split_at_mut(plain_len + SRTCP_INDEX_LEN);
                cm.verify(packet, &[], tag)?;
                if !encrypted {
                    return Ok(());
                }
                cm.keystream(ssrc, index, &mut packet[RTCP_CLEAR_LEN..plain_len])
                    .map_err(|()| Reason::SrtpAuthentication)
            }
        }
    }
}

impl Gcm {
    /// RFC 7714 §8.1 and §9.1: two zero bytes, SSRC and 48 bits of index, combined with the salt. In RTCP the
    /// index has 31 bits; the keys differ, so the nonces may meet.
    #[inline]
    fn nonce(&self, ssrc: Ssrc, index: u64) -> Nonce {
        let bytes = (self.salt ^ position(ssrc, index)).to_be_bytes();
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&bytes[4..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// `packet` ends with the tag.
    fn open_rtcp(&self, ssrc: Ssrc, trailer: u32, packet: &mut [u8]) -> Result<(), Reason> {
        let nonce = self.nonce(ssrc, u64::from(trailer & !ENCRYPTED));
        let (plain, tag) = packet.split_at_mut(packet.len() - GCM_TAG_LEN);
        let opened = if trailer & ENCRYPTED != 0 {
            let (header, body) = plain.split_at_mut(RTCP_CLEAR_LEN);
            let aad = Aad::from(gcm_rtcp_aad(header, trailer.to_be_bytes()));
            self.key.open_in_place_separate_tag(nonce, aad, tag, body).is_ok()
        } else {
            // Only authenticated: packet and trailer are one associated text, so the trailer takes the tag's
            // place (§9.3).
            let mut kept = [0; GCM_TAG_LEN];
            kept.copy_from_slice(tag);
            tag[..SRTCP_INDEX_LEN].copy_from_slice(&trailer.to_be_bytes());
            let end = packet.len() - GCM_TAG_LEN + SRTCP_INDEX_LEN;
            self.key.open_in_place_separate_tag(nonce, Aad::from(&packet[..end]), &kept, &mut []).is_ok()
        };
        if opened { Ok(()) } else { Err(Reason::SrtpAuthentication) }
    }
}

impl Cm {
    /// Encrypts or decrypts: both are the same (RFC 3711 §4.1.1). The lowest 16 bits of the counter count blocks.
    fn keystream(&self, ssrc: Ssrc, index: u64, bytes: &mut [u8]) -> Result<(), ()> {
        let counter = ((self.salt ^ position(ssrc, index)) << 16).to_be_bytes();
        let context = EncryptionContext::Iv128(FixedLength::from(counter));
        self.key.less_safe_encrypt(bytes, context).map(drop).map_err(drop)
    }

    fn tag(&self, packet: &[u8], more: &[u8]) -> [u8; SHA1_TAG_LEN] {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(packet);
        context.update(more);
        let mut tag = [0; SHA1_TAG_LEN];
        tag.copy_from_slice(&context.sign().as_ref()[..SHA1_TAG_LEN]);
        tag
    }

    fn verify(&self, packet: &[u8], more: &[u8], tag: &[u8]) -> Result<(), Reason> {
        verify_slices_are_equal(&self.tag(packet, more), tag).map_err(|_| Reason::SrtpAuthentication)
    }

    fn seal_rtp(&self, ssrc: Ssrc, index: u64, out: &mut [u8], header_len: usize) -> Result<(), Reason> {
        let (packet, tag) = out.split_at_mut(out.len() - SHA1_TAG_LEN);
        self.keystream(ssrc, index, &mut packet[header_len..]).map_err(|()| Reason::SealNoRoom)?;
        tag.copy_from_slice(&self.tag(packet, &roll_over(index)));
        Ok(())
    }
}

/// What makes the keystream of a packet its own: SSRC and index.
#[inline]
fn position(ssrc: Ssrc, index: u64) -> u128 {
    u128::from(ssrc.0) << 48 | u128::from(index)
}

/// The roll-over counter: it is not in the packet, but under its HMAC (RFC 3711 §4.2).
fn roll_over(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// RFC 7714 §9.2: the clear header, then E flag and index, though the tag stands between them in the packet.
fn gcm_rtcp_aad(header: &[u8], trailer: [u8; SRTCP_INDEX_LEN]) -> [u8; RTCP_CLEAR_LEN + SRTCP_INDEX_LEN] {
    let mut aad = [0; RTCP_CLEAR_LEN + SRTCP_INDEX_LEN];
    aad[..RTCP_CLEAR_LEN].copy_from_slice(header);
    aad[RTCP_CLEAR_LEN..].copy_from_slice(&trailer);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const SALT: &str = "517569642070726f2071756f";

    fn gcm(profile: Profile) -> Cipher {
        Cipher::new(profile, &hex(KEY)[..profile.key_len()], &hex(SALT), &[])
    }

    const RTP_SSRC: Ssrc = Ssrc(0x5501_a0b2);
    const RTP: &str = "8040f17b8041f8d35501a0b247616c6c696120657374206f6d6e6973206469766973\
                       6120696e207061727465732074726573";
    const SRTP_128: &str = "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d29\
                            4e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce";
    const SRTP_256: &str = "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58\
                            e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13";

    #[test]
    fn rtp_vectors_of_rfc_7714_section_16() {
        for (profile, sealed) in [(Profile::AeadAes128Gcm, SRTP_128), (Profile::AeadAes256Gcm, SRTP_256)] {
            let (cipher, plain, sealed) = (gcm(profile), hex(RTP), hex(sealed));
            let at = (RTP_SSRC, 0xf17b);

            let (payload, tail) = plain[12..].split_at(30);
            let mut out = plain[..12].to_vec();
            out.resize(sealed.len(), 0);
            cipher.seal_rtp(at, &mut out, 12, payload, tail).expect("lengths fit");
            assert_eq!(out, sealed, "{profile:?}");

            let mut out = plain.clone();
            out.resize(sealed.len(), 0);
            cipher.seal_rtp_in_place(at, &mut out, 12).expect("lengths fit");
            assert_eq!(out, sealed, "{profile:?}");

            cipher.open_rtp(at, &mut out, 12).expect("the tag is right");
            assert_eq!(out[..plain.len()], plain, "{profile:?}");
        }
    }

    const RTCP_SSRC: Ssrc = Ssrc(0x4d61_7273);
    const RTCP_INDEX: u32 = 0x5d4;
    const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                        deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
    const SRTCP_128: &str = "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32d\
                             c676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf872\
                             45d9eade800005d4";
    const SRTCP_256: &str = "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50\
                             a2eaa5c1110555be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6c\
                             b26ac3be800005d4";
    const SRTCP_128_TAG_ONLY: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                                      deadbeefdeadbeefdeadbeefdeadbeefdeadbeef841dd9683dd78ec92ae58790\
                                      125f62b3000005d4";

    #[test]
    fn rtcp_vectors_of_rfc_7714_section_17() {
        for (profile, sealed) in [(Profile::AeadAes128Gcm, SRTCP_128), (Profile::AeadAes256Gcm, SRTCP_256)] {
            let (cipher, plain, sealed) = (gcm(profile), hex(RTCP), hex(sealed));
            let mut out = plain.clone();
            out.resize(sealed.len(), 0);
            cipher.seal_rtcp(RTCP_SSRC, RTCP_INDEX, &mut out).expect("lengths fit");
            assert_eq!(out, sealed, "{profile:?}");

            let trailer = cipher.rtcp_trailer(&out);
            assert_eq!(trailer, ENCRYPTED | RTCP_INDEX);
            cipher.open_rtcp(RTCP_SSRC, trailer, &mut out).expect("the tag is right");
            assert_eq!(out[..plain.len()], plain, "{profile:?}");
        }
    }

    #[test]
    fn rtcp_that_is_only_authenticated_is_read_as_in_rfc_7714_section_17_3() {
        let (cipher, mut packet) = (gcm(Profile::AeadAes128Gcm), hex(SRTCP_128_TAG_ONLY));
        let trailer = cipher.rtcp_trailer(&packet);
        assert_eq!(trailer, RTCP_INDEX);
        cipher.open_rtcp(RTCP_SSRC, trailer, &mut packet).expect("the tag is right");
        assert_eq!(packet[..hex(RTCP).len()], hex(RTCP));

        let mut forged = hex(SRTCP_128_TAG_ONLY);
        forged[20] ^= 1;
        assert_eq!(cipher.open_rtcp(RTCP_SSRC, trailer, &mut forged), Err(Reason::SrtpAuthentication));
    }

    #[test]
    fn counter_mode_keystream_of_rfc_3711_appendix_b_2() {
        let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
        let salt = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd");
        let Cipher::Cm(cm) = Cipher::new(Profile::Aes128CmSha1_80, &key, &salt, &[0; 20]) else {
            panic!("another profile")
        };
        let mut stream = vec![0; 0xff02 * 16];
        cm.keystream(Ssrc(0), 0, &mut stream).expect("any length");
        assert_eq!(
            stream[..48],
            hex(
                "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab41e95b3bb0a2e8dd477901e4fca894c0"
            )
        );
        assert_eq!(
            stream[0xfeff * 16..],
            hex(
                "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae6a2cc3787889374fbeb4c81b17ba6c44"
            )
        );
    }
}
