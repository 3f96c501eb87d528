//! The way out to a client: a bounded queue between a room and the connection that it must never wait for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use crate::observe::people::CarrierKind;

/// Messages that may wait for a client to read. More rides out longer pauses of its network, fewer bound
/// memory; the session keeps what is lost here.
const QUEUE: usize = 256;
/// Bytes likewise: far above the largest welcome, since a message that never fits would never arrive.
const QUEUE_BYTES: usize = 4 << 20;

/// Why a carrier ends, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The answer to `bye`.
    Bye,
    /// The server stops.
    GoAway,
    /// A frame beyond its limit.
    TooLarge,
    /// A newer carrier or session took this one's place.
    Replaced,
    /// `hello` or `resume` was refused.
    Refused,
    /// The client does not read what is sent.
    Slow,
    /// The session ended.
    Ended,
}

impl Close {
    /// The WebSocket close code (RFC 6455 §7.4); 4000 and above are ours.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Bye => 1000,
            Self::GoAway => 1001,
            Self::TooLarge => 1009,
            Self::Replaced => 4000,
            Self::Refused => 4001,
            Self::Slow => 4002,
            Self::Ended => 4003,
        }
    }

    /// Whether what was queued before is still worth sending.
    #[must_use]
    pub fn sends_the_rest(self) -> bool {
        !matches!(self, Self::Replaced | Self::Slow)
    }
}

#[derive(Debug)]
struct Shared {
    /// To tell carriers of one session apart.
    id: u64,
    started: Instant,
    /// When the client was last heard, in milliseconds since `started`.
    heard_ms: AtomicU64,
    closing: OnceLock<Close>,
    /// Bytes that wait.
    queued: AtomicUsize,
    wake: Notify,
}

/// The room's end of a connection. Clones are the same carrier.
#[derive(Clone, Debug)]
pub struct Carrier {
    shared: Arc<Shared>,
    kind: CarrierKind,
    queue: mpsc::Sender<String>,
}

/// The connection's end.
#[derive(Debug)]
pub struct Outgoing {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<String>,
}

impl Carrier {
    /// Both ends of a new carrier on which something was heard just now.
    #[must_use]
    pub fn new(now: Instant) -> (Self, Outgoing) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            started: now,
            heard_ms: AtomicU64::new(0),
            closing: OnceLock::new(),
            queued: AtomicUsize::new(0),
            wake: Notify::new(),
        });
        (
            Self { shared: shared.clone(), kind: CarrierKind::default(), queue: sender },
            Outgoing { shared, queue: receiver },
        )
    }

    /// The same carrier, counted as one of another kind.
    #[must_use]
    pub fn of_kind(self, kind: CarrierKind) -> Self {
        Self { kind, ..self }
    }

    #[must_use]
    pub fn kind(&self) -> CarrierKind {
        self.kind
    }

    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Queues a message; returns false when the client is too far behind.
    #[must_use]
    pub fn send(&self, text: String) -> bool {
        let queued = &self.shared.queued;
        if self.shared.closing.get().is_some() || queued.load(Ordering::Relaxed) > QUEUE_BYTES {
            return false;
        }
        // Counted before it can be taken out.
        let bytes = text.len();
        queued.fetch_add(bytes, Ordering::Relaxed);
        let sent = self.queue.try_send(text).is_ok();
        if !sent {
            queued.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }

    /// Ends the carrier; the first reason counts.
    pub fn close(&self, why: Close) {
        if self.shared.closing.set(why).is_ok() {
            self.shared.wake.notify_one();
        }
    }

    /// Anything at all arrived, were it only a pong. Written by the connection without waking the room.
    pub fn heard(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.shared.started).as_millis();
        self.shared.heard_ms.fetch_max(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When anything last arrived.
    #[must_use]
    pub fn last_heard(&self) -> Instant {
        self.shared.started + Duration::from_millis(self.shared.heard_ms.load(Ordering::Relaxed))
    }
}

impl Outgoing {
    /// The next message to write; `None` once the carrier is to be closed, after what is worth sending was.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if self.closing().is_some() {
                return self.try_next();
            }
            tokio::select! {
                biased;
                () = self.shared.wake.notified() => {}
                text = self.queue.recv() => return self.taken(text),
            }
        }
    }

    /// The next message if there is one at this moment.
    pub fn try_next(&mut self) -> Option<String> {
        if self.closing().is_some_and(|why| !why.sends_the_rest()) {
            return None;
        }
        let text = self.queue.try_recv().ok();
        self.taken(text)
    }

    fn taken(&self, text: Option<String>) -> Option<String> {
        text.inspect(|text| {
            self.shared.queued.fetch_sub(text.len(), Ordering::Relaxed);
        })
    }

    /// Why the carrier is to be closed.
    #[must_use]
    pub fn closing(&self) -> Option<Close> {
        self.shared.closing.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_said_before_a_refusal_is_still_sent() {
        let (carrier, mut outgoing) = Carrier::new(Instant::now());
        assert!(carrier.send("refuse".into()));
        carrier.close(Close::Refused);
        carrier.close(Close::Replaced);
        assert!(!carrier.send("late".into()));
        assert_eq!(outgoing.next().await.as_deref(), Some("refuse"));
        assert_eq!(outgoing.next().await, None);
        assert_eq!(outgoing.closing(), Some(Close::Refused));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_noticed() {
        let (carrier, mut outgoing) = Carrier::new(Instant::now());
        let fit = (0..1000).take_while(|_| carrier.send(String::new())).count();
        assert_eq!(fit, QUEUE);
        carrier.close(Close::Slow);
        assert_eq!(outgoing.next().await, None);

        let (carrier, mut outgoing) = Carrier::new(Instant::now());
        let fit = (0..1000).take_while(|_| carrier.send("x".repeat(1 << 20))).count();
        assert_eq!(fit, 5, "as many as begin below the limit");
        assert!(outgoing.next().await.is_some());
        assert!(carrier.send(String::new()), "there is room again");
    }
}
