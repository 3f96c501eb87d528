//! Any bytes as SRTP and SRTCP packets of a client whose keys are known, and any series of packets to seal.

use std::collections::HashSet;

use motet::id::Ssrc;
use motet::transport::DtlsRole;
use motet::transport::srtp::{Opener, Profile, SealStream, Sealer, split};

const HEADER_LEN: usize = 12;
const PROFILES: [Profile; 3] = [Profile::AeadAes256Gcm, Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80];

/// The first byte chooses the profile. The rest is received as it is; then it is read as a list of packets to seal,
/// which open to what they were, unless one byte was changed on the way, and of which no two share a keystream.
pub fn fuzz_srtp(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let profile = PROFILES[usize::from(choice) % PROFILES.len()];
    let material: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
    let (local, _) = split(profile, &material, DtlsRole::Server).expect("the length is the profile's");
    let (_, remote) = split(profile, &material, DtlsRole::Client).expect("the length is the profile's");
    receive(&mut Opener::new(profile, &remote), data);
    exchange(&mut Sealer::new(profile, &local), &mut Opener::new(profile, &remote), data);
}

/// A packet that opens does so once.
fn receive(opener: &mut Opener, data: &[u8]) {
    if opener.open_rtcp(&mut data.to_vec()).is_ok() {
        assert!(opener.open_rtcp(&mut data.to_vec()).is_err());
    }
    let Some(header) = data.first_chunk::<HEADER_LEN>() else { return };
    let sequence = u16::from_be_bytes([header[2], header[3]]);
    let ssrc = Ssrc(u32::from_be_bytes([header[8], header[9], header[10], header[11]]));
    let header_len = HEADER_LEN + 4 * usize::from(header[0] & 15);
    let mut packet = data.to_vec();
    if let Ok(len) = opener.open_rtp(&mut packet, header_len, ssrc, sequence) {
        assert!([10, 16].contains(&(packet.len() - header_len - len)));
        assert!(opener.open_rtp(&mut data.to_vec(), header_len, ssrc, sequence).is_err());
    }
}

/// Six bytes a packet: what to do, how far the sequence number moves (two bytes), payload, padding, byte to change.
fn exchange(sealer: &mut Sealer, opener: &mut Opener, data: &[u8]) {
    let mut streams = [0, 1, 2, 3].map(|ssrc| SealStream::new(Ssrc(ssrc)));
    let mut sequences = [2000_u16; 4];
    let mut keystreams = HashSet::new();
    for step in data.chunks_exact(6) {
        let which = usize::from(step[0] & 3);
        let (report, in_place, tampered) = (step[0] & 4 != 0, step[0] & 8 != 0, step[0] & 16 != 0);
        if step[0] & 0xe0 == 0xe0 {
            // A mistake that must not matter: the stream begins again.
            streams[which] = SealStream::new(Ssrc(which as u32));
        }
        // Zeros come out as the keystream. Sixteen are enough to recognise it.
        let zeros = vec![0; 16 + usize::from(step[3])];
        let mut out = vec![0; HEADER_LEN + zeros.len() + 255 + 20];
        if report {
            out[4..8].copy_from_slice(&(which as u32).to_be_bytes());
            let len = sealer.seal_rtcp(&mut out, 8 + zeros.len()).expect("there is room");
            assert!(keystreams.insert(out[8..24].to_vec()));
            if tampered {
                out[usize::from(step[5]) % len] ^= 1;
            }
            assert_eq!(opener.open_rtcp(&mut out[..len]).is_ok(), !tampered);
            continue;
        }
        let sequence = sequences[which].wrapping_add(u16::from_be_bytes([step[1], step[2]]));
        sequences[which] = sequence;
        out[0] = 0x80;
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[8..12].copy_from_slice(&(which as u32).to_be_bytes());
        let padding = vec![0; usize::from(step[4])];
        let stream = &mut streams[which];
        let sealed = if in_place {
            sealer.seal_rtp_in_place(stream, sequence, &mut out, HEADER_LEN, zeros.len() + padding.len())
        } else {
            sealer.seal_rtp(stream, sequence, &mut out, HEADER_LEN, &zeros, &padding)
        };
        let Ok(len) = sealed else { continue };
        assert!(keystreams.insert(out[HEADER_LEN..HEADER_LEN + 16].to_vec()));
        if tampered {
            out[usize::from(step[5]) % len] ^= 1;
        }
        let opened = opener.open_rtp(&mut out[..len], HEADER_LEN, Ssrc(which as u32), sequence);
        if tampered {
            assert!(opened.is_err());
        } else if let Ok(opened) = opened {
            assert_eq!(opened, zeros.len() + padding.len());
            assert!(out[HEADER_LEN..HEADER_LEN + opened].iter().all(|&byte| byte == 0));
        }
    }
}
