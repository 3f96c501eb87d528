//! All join at the same instant.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::media::{play, socket_towards};
use crate::peer::{Peer, Shape};
use crate::session::Session;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// How many of them publish; the others watch and listen
    #[arg(long, default_value_t = 2)]
    publishers: usize,
    /// Seconds until everybody must have sound and picture
    #[arg(long, default_value_t = 60)]
    within: u64,
    /// Seconds that they stay after that, unless they are told to terminate
    #[arg(long, default_value_t = 0)]
    stay: u64,
}

/// When a client reached what, since all began.
#[derive(Clone, Copy, Default)]
struct Steps {
    welcome: Option<Duration>,
    connected: Option<Duration>,
    sound: Option<Duration>,
    picture: Option<Duration>,
}

impl Steps {
    fn served(&self) -> Option<Duration> {
        Some(self.sound?.max(self.picture?))
    }
}

pub(crate) async fn run(origin: String, room: String, options: Options) -> anyhow::Result<()> {
    let all: Rc<RefCell<Vec<Steps>>> = Rc::new(RefCell::new(vec![Steps::default(); options.clients]));
    let (start, started) = watch::channel(None);
    let (leave, leaving) = watch::channel(false);
    let mut clients = JoinSet::new();
    for index in 0..options.clients {
        // Offers cost the client much, and are not what is measured.
        let shape = Shape { publishes: index < options.publishers, audio: 2, video: 2 };
        let peer = Peer::new(std::time::Instant::now(), shape)?;
        let (origin, room, all, mut started) = (origin.clone(), room.clone(), all.clone(), started.clone());
        let mut leaving = leaving.clone();
        clients.spawn_local(async move {
            let began = started.wait_for(Option::is_some).await.ok().and_then(|began| *began);
            let Some(began) = began else { return };
            let report = |step: &dyn Fn(&mut Steps)| step(&mut all.borrow_mut()[index]);
            let leaves = async { drop(leaving.wait_for(|leaves| *leaves).await) };
            if let Err(error) = attend(&origin, &room, index, peer, began, &report, leaves).await {
                eprintln!("client {index}: {error:#}");
            }
        });
    }
    let _ = start.send(Some(Instant::now()));
    let everybody = async {
        while all.borrow().iter().any(|steps| steps.served().is_none()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let complete = timeout(Duration::from_secs(options.within), everybody).await.is_ok();
    let all = all.borrow().clone();
    println!("{} clients, {} of them publish; ms since all began", options.clients, options.publishers);
    println!("{:<10} {:>5} {:>8} {:>8} {:>8}", "", "count", "median", "95 %", "last");
    let row = |name: &str, of: fn(&Steps) -> Option<Duration>| {
        let mut times: Vec<_> = all.iter().filter_map(of).map(|time| time.as_millis()).collect();
        times.sort_unstable();
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
        let [median, most, last] = [50, 95, 100].map(|share| at(share).copied().unwrap_or_default());
        println!("{name:<10} {:>5} {median:>8} {most:>8} {last:>8}", times.len());
    };
    row("welcome", |steps| steps.welcome);
    row("connected", |steps| steps.connected);
    row("sound", |steps| steps.sound);
    row("picture", |steps| steps.picture);
    ensure!(complete, "not everybody has sound and picture");
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = sleep(Duration::from_secs(options.stay)) => {}
        _ = terminate.recv() => {}
    }
    let _ = leave.send(true);
    clients.join_all().await;
    Ok(())
}

/// Notes what the client reached.
type Report<'a> = &'a dyn Fn(&dyn Fn(&mut Steps));

async fn attend(
    origin: &str,
    room: &str,
    index: usize,
    mut peer: Peer,
    began: Instant,
    report: Report<'_>,
    leaves: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let name = format!("Crowd {index}");
    let (mut session, answer) = Session::join(origin, room, &name, &peer.offer, peer.publish()).await?;
    report(&|steps| steps.welcome = Some(began.elapsed()));
    let socket = socket_towards(&answer).await?;
    peer.answered(std::time::Instant::now(), &answer, socket.local_addr()?)?;
    let watch = |peer: &Peer, connected: bool| {
        let now = began.elapsed();
        report(&|steps| {
            let reached = |step: &mut Option<Duration>, is: bool| {
                if is {
                    step.get_or_insert(now);
                }
            };
            reached(&mut steps.connected, connected);
            reached(&mut steps.sound, peer.received.sound > 0);
            reached(&mut steps.picture, peer.received.pictures > 0);
        });
    };
    tokio::select! {
        ended = session.run() => ended,
        ended = play(&mut peer, &socket, watch) => ended,
        () = leaves => Ok(()),
    }?;
    session.leave().await
}
