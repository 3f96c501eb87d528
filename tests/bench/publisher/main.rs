//! `publisher ORIGIN ROOM`: joins a room and publishes a prepared picture and silence, without an encoder, so that
//! whoever measures does not measure that. It is a second implementation of PROTOCOL.md and shares no code with the
//! server.

mod peer;
mod pictures;
mod session;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use rtc::peer_connection::state::RTCPeerConnectionState;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use peer::Peer;
use pictures::Pictures;
use session::Session;

static FILE: &[u8] = include_bytes!("../../data/vp8/bars.ivf");
/// 20 ms of silence in Opus.
static SILENCE: &[u8] = &[0xf8, 0xff, 0xfe];
const SOUND_EVERY: Duration = Duration::from_millis(20);

/// Publishes a prepared picture and silence in a room.
#[derive(Parser)]
struct Options {
    /// The server, as http://localhost:8080
    origin: String,
    room: String,
    #[arg(long, default_value = "Publisher")]
    name: String,
    /// How long; without it, until it is interrupted
    #[arg(long)]
    seconds: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut peer = Peer::new(std::time::Instant::now())?;
    let publish = json!([
        {"mid": peer.sound.mid, "kind": "audio", "source": "microphone"},
        {"mid": peer.picture.mid, "kind": "video", "source": "camera"},
    ]);
    let (mut session, answer) =
        Session::join(&options.origin, &options.room, &options.name, &peer.offer, publish).await?;
    let socket = socket_towards(&answer).await?;
    peer.answered(std::time::Instant::now(), &answer, socket.local_addr()?)?;

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let end = async {
        match options.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = session.run() => ended?,
        ended = play(&mut peer, &socket) => ended?,
        () = end => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    session.leave().await
}

/// A socket with the address from which the server's first candidate is reached.
async fn socket_towards(answer: &str) -> anyhow::Result<UdpSocket> {
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

/// Connects, then plays sound and pictures for ever.
async fn play(peer: &mut Peer, socket: &UdpSocket) -> anyhow::Result<()> {
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
        let media = connected.then(|| sound_at.min(picture_at));
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
        if connected && sound_at <= now {
            peer.send_sound(now.into_std(), ticks(sound_at, 48_000), SILENCE)?;
            sound_at += SOUND_EVERY;
        }
        if peer.take_keyframe_request() {
            pictures.want_keyframe();
        }
        if connected && picture_at <= now {
            peer.send_picture(now.into_std(), ticks(picture_at, 90_000), pictures.next())?;
            picture_at += pictures.interval();
        }
    }
}
