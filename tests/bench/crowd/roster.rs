//! Members without media come and go.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, interval, sleep};

use crate::peer::{Peer, Shape};
use crate::session::Session;

#[derive(Args)]
pub(crate) struct Options {
    /// Who stays and listens
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// Joins each second, and as many leaves
    #[arg(long, default_value_t = 10)]
    churn: u32,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The server's process, to see what it uses
    #[arg(long)]
    pid: Option<u32>,
}

/// What all members received.
#[derive(Clone, Copy, Default)]
struct Heard {
    messages: u64,
    bytes: u64,
}

pub(crate) async fn run(origin: String, room: String, options: Options) -> anyhow::Result<()> {
    let offer = Peer::new(std::time::Instant::now(), Shape { publishes: false, audio: 1, video: 1 })?.offer;
    let heard = Rc::new(RefCell::new(vec![Heard::default(); options.members]));
    for index in 0..options.members {
        let (mut session, _) =
            Session::join(&origin, &room, &format!("Member {index}"), &offer, json!([])).await?;
        session.signaling_only = true;
        let heard = heard.clone();
        tokio::task::spawn_local(async move {
            loop {
                let turn = tokio::time::timeout(Duration::from_millis(200), session.run()).await;
                heard.borrow_mut()[index] = Heard { messages: session.messages, bytes: session.bytes };
                if let Ok(Err(error)) = turn {
                    eprintln!("member {index}: {error:#}");
                    return;
                }
            }
        });
    }
    // Until the news of all these joins have arrived.
    sleep(Duration::from_secs(3)).await;
    println!("{} members, {} s each; per second:", options.members, options.seconds);
    println!("{:<8} {:>12} {:>18} {:>18}", "", "server CPU", "messages a member", "bytes a member");
    for churn in [0, options.churn] {
        let before = (sum(&heard.borrow()), used(options.pid)?);
        let end = Instant::now() + Duration::from_secs(options.seconds);
        if churn > 0 {
            come_and_go(&origin, &room, &offer, churn, end).await?;
        } else {
            tokio::time::sleep_until(end).await;
        }
        sleep(Duration::from_millis(400)).await;
        let after = (sum(&heard.borrow()), used(options.pid)?);
        let seconds = options.seconds as f64;
        let each = |before: u64, after: u64| (after - before) as f64 / options.members as f64 / seconds;
        let what = if churn == 0 { "quiet".to_owned() } else { format!("churn {churn}") };
        println!(
            "{what:<8} {:>9.2} ms {:>18.2} {:>18.0}",
            (after.1 - before.1).as_secs_f64() * 1000.0 / seconds,
            each(before.0.messages, after.0.messages),
            each(before.0.bytes, after.0.bytes),
        );
    }
    Ok(())
}

/// Somebody joins and the one before him leaves, so many times a second.
async fn come_and_go(origin: &str, room: &str, offer: &str, churn: u32, end: Instant) -> anyhow::Result<()> {
    let mut ticks = interval(Duration::from_secs(1) / churn);
    let mut guest: Option<Session> = None;
    while Instant::now() < end {
        ticks.tick().await;
        let (next, _) = Session::join(origin, room, "Guest", offer, json!([])).await?;
        if let Some(before) = guest.replace(next) {
            before.leave().await?;
        }
    }
    if let Some(last) = guest {
        last.leave().await?;
    }
    Ok(())
}

fn sum(heard: &[Heard]) -> Heard {
    heard.iter().fold(Heard::default(), |sum, one| Heard {
        messages: sum.messages + one.messages,
        bytes: sum.bytes + one.bytes,
    })
}

/// Processor time of a process so far, by /proc/PID/stat: fields 14 and 15, in hundredths of a second.
fn used(pid: Option<u32>) -> anyhow::Result<Duration> {
    let Some(pid) = pid else { return Ok(Duration::ZERO) };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("no such process")?;
    let fields = stat.rsplit_once(')').context("not a process's line")?.1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}
