//! `crowd ORIGIN ROOM storm`: many clients of another make join a room at the same instant; when does everybody see and
//! hear somebody? `crowd ORIGIN ROOM roster`: many members come and go; what does it cost the server and each member?

#[path = "../publisher/media.rs"]
mod media;
#[path = "../publisher/peer.rs"]
mod peer;
#[path = "../publisher/pictures.rs"]
mod pictures;
mod roster;
#[path = "../publisher/session.rs"]
mod session;
mod storm;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Options {
    /// The server, as http://localhost:8080
    origin: String,
    room: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// All join at the same instant; fails unless each has sound and picture in time
    Storm(storm::Options),
    /// Members without media come and go while others listen
    Roster(roster::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Options { origin, room, what } = Options::parse();
    // `rtc` connections stay on their thread.
    let local = tokio::task::LocalSet::new();
    match what {
        What::Storm(options) => local.run_until(storm::run(origin, room, options)).await,
        What::Roster(options) => local.run_until(roster::run(origin, room, options)).await,
    }
}
