//! `publisher ORIGIN ROOM`: joins a room and publishes a prepared picture and silence, without an encoder, so that
//! whoever measures does not measure that. It is a second implementation of PROTOCOL.md and shares no code with the
//! server.

mod media;
mod peer;
mod pictures;
mod session;

use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use media::{play, socket_towards};
use peer::{Peer, Shape};
use session::Session;

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
    let shape = Shape { publishes: true, audio: 0, video: 0 };
    let mut peer = Peer::new(std::time::Instant::now(), shape)?;
    let (mut session, answer) =
        Session::join(&options.origin, &options.room, &options.name, &peer.offer, peer.publish()).await?;
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
        ended = play(&mut peer, &socket, |_, _| ()) => ended?,
        () = end => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    session.leave().await
}
