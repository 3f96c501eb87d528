//! From the secret that DTLS exported to the keys of the ciphers.

use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::Profile;
use super::cipher::Cipher;
use crate::transport::DtlsRole;

/// Bytes of the HMAC-SHA1 key (RFC 3711 §5.2).
const AUTH_KEY_LEN: usize = 20;

/// The master key and master salt of one direction.
#[derive(Clone)]
pub struct MasterKey {
    key: [u8; 32],
    salt: [u8; 14],
}

/// Neither half is ever logged.
impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    /// `None` unless both have the lengths of the profile.
    #[must_use]
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Self> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return None;
        }
        let mut master = Self { key: [0; 32], salt: [0; 14] };
        master.key[..key.len()].copy_from_slice(key);
        master.salt[..salt.len()].copy_from_slice(salt);
        Some(master)
    }
}

/// Splits what DTLS exported (RFC 5764 §4.2) into the key of what we send and the key of what we receive:
/// client's key, server's key, client's salt, server's salt. `role` is ours in the handshake. `None` unless the
/// length is [`Profile::keying_material_len`].
#[must_use]
pub fn split(profile: Profile, material: &[u8], role: DtlsRole) -> Option<(MasterKey, MasterKey)> {
    if material.len() != profile.keying_material_len() {
        return None;
    }
    let (keys, salts) = material.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());
    let client = MasterKey::new(profile, client_key, client_salt)?;
    let server = MasterKey::new(profile, server_key, server_salt)?;
    Some(match role {
        DtlsRole::Server => (server, client),
        DtlsRole::Client => (client, server),
    })
}

/// Which of the two protocols a session key is for; the value is the first of its three labels (RFC 3711 §4.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Rtp = 0,
    Rtcp = 3,
}

/// The prepared cipher for one protocol of one direction.
pub(super) fn session_cipher(profile: Profile, master: &MasterKey, purpose: Use) -> Cipher {
    let derive = |label: u8, out: &mut [u8]| derive(profile, master, purpose as u8 + label, out);
    let (mut key, mut auth, mut salt) = ([0; 32], [0; AUTH_KEY_LEN], [0; 14]);
    let key = &mut key[..profile.key_len()];
    let salt = &mut salt[..profile.salt_len()];
    derive(0, key);
    derive(1, &mut auth);
    derive(2, salt);
    Cipher::new(profile, key, salt, &auth)
}

/// The key derivation of RFC 3711 §4.3 with a derivation rate of 0: the keystream of the master key from a
/// start that the label and the master salt give. RFC 7714 §11 pads its shorter salts with zeros on the right;
/// RFC 6188 uses the same construction with AES-256.
fn derive(profile: Profile, master: &MasterKey, label: u8, out: &mut [u8]) {
    let algorithm = if profile.key_len() == 32 { &cipher::AES_256 } else { &cipher::AES_128 };
    let mut start = [0; 16];
    start[..14].copy_from_slice(&master.salt);
    start[7] ^= label;
    out.fill(0);
    UnboundCipherKey::new(algorithm, &master.key[..profile.key_len()])
        .and_then(EncryptingKey::ctr)
        .and_then(|key| key.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(start))))
        .expect("the key has the algorithm's length and counter mode takes any number of bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_keys_of_rfc_3711_appendix_b_3() {
        let key = 0xe1f9_7a0d_3e01_8be0_d64f_a32c_06de_4139_u128.to_be_bytes();
        let salt = &0x0ec6_75ad_498a_feeb_b696_0b3a_abe6_u128.to_be_bytes()[2..];
        let profile = Profile::Aes128CmSha1_80;
        let master = MasterKey::new(profile, &key, salt).expect("lengths of the profile");

        let mut encryption = [0; 16];
        derive(profile, &master, 0, &mut encryption);
        assert_eq!(u128::from_be_bytes(encryption), 0xc61e_7a93_744f_39ee_1073_4afe_3ff7_a087);

        let mut salt = [0; 14];
        derive(profile, &master, 2, &mut salt);
        assert_eq!(salt, 0x30cb_bc08_863d_8c85_d49d_b34a_9ae1_u128.to_be_bytes()[2..]);

        let mut authentication = [0; 94];
        derive(profile, &master, 1, &mut authentication);
        let expected = [
            0xcebe_321f_6ff7_716b_6fd4_ab49_af25_6a15_u128,
            0x6d38_baa4_8f0a_0acf_3c34_e235_9e6c_dbce,
            0xe049_646c_43d9_327a_d175_578e_f722_7098,
            0x6371_c10c_9a36_9ac2_f94a_8c5f_bcdd_dc25,
            0x6d6e_919a_48b6_10ef_17c2_041e_4740_3576,
            0x6b68_642c_59bb_fc2f_34db_60db_dfb2_0000,
        ];
        assert_eq!(authentication[..], expected.map(u128::to_be_bytes).concat()[..94]);
    }

    #[test]
    fn each_side_seals_with_its_own_key() {
        for profile in [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm] {
            let material: Vec<u8> = (0..profile.keying_material_len()).map(|at| at as u8).collect();
            let (server_local, server_remote) =
                split(profile, &material, DtlsRole::Server).expect("right length");
            let (client_local, client_remote) =
                split(profile, &material, DtlsRole::Client).expect("right length");
            let (key, salt) = (profile.key_len(), profile.salt_len());
            assert_eq!(client_local.key[..key], material[..key]);
            assert_eq!(server_local.key[..key], material[key..2 * key]);
            assert_eq!(client_local.salt[..salt], material[2 * key..2 * key + salt]);
            assert_eq!(server_local.salt[..salt], material[2 * key + salt..]);
            assert_eq!(server_remote.key, client_local.key);
            assert_eq!(client_remote.salt, server_local.salt);
        }
    }

    #[test]
    fn keying_material_of_another_length_is_refused() {
        let profile = Profile::AeadAes256Gcm;
        for len in [0, profile.keying_material_len() - 1, profile.keying_material_len() + 1] {
            assert!(split(profile, &vec![0; len], DtlsRole::Server).is_none());
        }
    }
}
