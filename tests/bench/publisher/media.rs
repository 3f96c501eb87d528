//! The media of a peer connection on a real socket.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rtc::peer_connection::state::RTCPeerConnectionState;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use crate::peer::Peer;
use crate::pictures::Pictures;

static FILE: &[u8] = include_bytes!("../../data/vp8/bars.ivf");
/// 20 ms of silence in Opus.
static SILENCE: &[u8] = &[0xf8, 0xff, 0xfe];
const SOUND_EVERY: Duration = Duration::from_millis(20);

/// A socket with the address from which the server's first candidate is reached.
pub(crate) async fn socket_towards(answer: &str) -> anyhow::Result<UdpSocket> {
    let candidate = answer.lines().find_map(|line| line.strip_prefix("a=candidate:"));
    let fields: Vec<_> = candidate.context("the answer names no address")?.split(' ').collect();
    let [_, _, _, _, ip, port, ..] = fields[..] else { bail!("not a candidate: {fields:?}") };
    let server = SocketAddr::new(ip.parse::<IpAddr>()?, port.parse()?);
    let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let probe = UdpSocket::bind(any).await?;
    // Sends nothing: the kernel looks up the route.
    probe.connect(server).await?;
    let local = probe.local_addr()?.ip();
    Ok(UdpSocket::bind((local, 0)).await?)
}

/// Connects, then plays sound and pictures for ever, where the peer publishes any. `watch` sees the peer whenever something
/// happened, and whether it is connected.
pub(crate) async fn play(
    peer: &mut Peer,
    socket: &UdpSocket,
    mut watch: impl FnMut(&Peer, bool),
) -> anyhow::Result<()> {
    let mut pictures = Pictures::read(FILE).context("the prepared file is damaged")?;
    let start = Instant::now();
    let (mut sound_at, mut picture_at) = (start, start);
    let mut datagram = [0; 2048];
    let mut connected = false;
    loop {
        while let Some((to, bytes)) = peer.poll_transmit() {
            // A lost datagram is the network's ordinary business.
            let _ = socket.send_to(&bytes, to).await;
        }
        match peer.state() {
            RTCPeerConnectionState::Connected if !connected => {
                connected = true;
                (sound_at, picture_at) = (Instant::now(), Instant::now());
            }
            RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => {
                bail!("the connection was lost")
            }
            _ => {}
        }
        watch(peer, connected);
        let media = (connected && peer.publishes()).then(|| sound_at.min(picture_at));
        let due = [media, peer.poll_timeout().map(Instant::from_std)].into_iter().flatten().min();
        let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        tokio::select! {
            received = socket.recv_from(&mut datagram) => {
                if let Ok((len, from)) = received {
                    peer.handle_datagram(std::time::Instant::now(), from, &datagram[..len]);
                }
            }
            () = sleep_until(due) => {}
        }
        let now = Instant::now();
        peer.handle_timeout(now.into_std());
        let ticks =
            |at: Instant, rate: u128| (at.duration_since(start).as_micros() * rate / 1_000_000) as u32;
        if media.is_some() && sound_at <= now {
            peer.send_sound(now.into_std(), ticks(sound_at, 48_000), SILENCE)?;
            sound_at += SOUND_EVERY;
        }
        if peer.take_keyframe_request() {
            pictures.want_keyframe();
        }
        if media.is_some() && picture_at <= now {
            peer.send_picture(now.into_std(), ticks(picture_at, 90_000), pictures.next())?;
            picture_at += pictures.interval();
        }
    }
}
