//! A client that acknowledges, repeats, breaks off and comes back as it likes: numbers only grow on each carrier,
//! what is said is JSON, and memory stays bounded.

use std::time::{Duration, Instant};

use motet::observe::reason::Reason;
use motet::room::Have;
use motet::signal::message::{FromServer, Restart, RoomDelta, RoomInfo, Snapshot};
use motet::signal::session::{Body, Session};

pub fn fuzz_session(data: &[u8]) {
    let mut session = Session::new(1);
    let mut now = Instant::now();
    let mut last = 0;
    for pair in data.chunks_exact(2) {
        let (what, number) = (pair[0], u64::from(pair[1]));
        now += Duration::from_millis(number);
        match what % 8 {
            0 => push(&mut session, &FromServer::Restart(Restart { reason: Reason::DtlsFailed })),
            1 => push(&mut session, &FromServer::Have(Have::default())),
            2 => (0..number).for_each(|rev| {
                let delta = RoomDelta { rev, ..RoomDelta::default() };
                push(&mut session, &FromServer::Room(Box::new(delta)));
            }),
            3 => {
                session.handle_envelope(now, Some(number), number);
            }
            4 => {
                let far = number << 50;
                session.handle_envelope(now, (number % 2 == 0).then_some(far), far);
            }
            5 => session.detach(),
            6 => {
                session.attach(number);
                last = 0;
            }
            _ => {}
        }
        if session.snapshot_due() && session.is_attached() {
            let room = RoomInfo { rev: 0, total: 0 };
            let snapshot = Snapshot { room, participants: Vec::new(), publications: Vec::new() };
            push(&mut session, &FromServer::Snapshot(Box::new(snapshot)));
            assert!(!session.snapshot_due());
        }
        while let Some(text) = session.poll_transmit(now) {
            let message: serde_json::Value = serde_json::from_str(&text).expect("what is sent is JSON");
            assert!(message["a"].is_u64());
            if let Some(s) = message["s"].as_u64() {
                assert!(s > last);
                last = s;
            }
        }
        assert!(session.poll_timeout().is_none_or(|at| at > now));
    }
}

fn push(session: &mut Session, message: &FromServer) {
    // A session that is full ends; here it goes on, to see that it stays bounded and answers.
    let _ = session.push(Body::new(message));
}
