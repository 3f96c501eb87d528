//! The session: as much of the wire protocol as a publisher needs, written from PROTOCOL.md and from nothing else.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PING_EVERY: Duration = Duration::from_secs(5);
const PONG_WITHIN: Duration = Duration::from_secs(4);
const ACK_AFTER: Duration = Duration::from_secs(2);
const ACK_AFTER_MESSAGES: u64 = 32;
const WELCOME_WITHIN: Duration = Duration::from_secs(10);

/// A session on its only carrier: a publisher for tests does not resume.
pub(crate) struct Session {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Number of our latest message.
    sent: u64,
    /// Highest number seen, and what of it was acknowledged.
    seen: u64,
    acknowledged: u64,
    ack_at: Option<Instant>,
    ping_at: Instant,
    pong_until: Option<Instant>,
    /// Received so far.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Stays without a connection for media.
    pub(crate) signaling_only: bool,
}

impl Session {
    /// Says `hello`; returns the answer to the offer. `offer` is for transport 0, `publish` a list as in the protocol.
    pub(crate) async fn join(
        origin: &str,
        room: &str,
        name: &str,
        offer: &str,
        publish: Value,
    ) -> anyhow::Result<(Self, String)> {
        let address = origin.trim_end_matches('/').replacen("http", "ws", 1) + "/v1/ws";
        let (socket, _) =
            connect_async(&address).await.with_context(|| format!("cannot connect to {address}"))?;
        let mut session = Self {
            socket,
            sent: 0,
            seen: 0,
            acknowledged: 0,
            ack_at: None,
            ping_at: Instant::now() + PING_EVERY,
            pong_until: None,
            messages: 0,
            bytes: 0,
            signaling_only: false,
        };
        let hello = json!({"t": "hello", "room": room, "name": name, "offer": offer, "publish": publish});
        session.say(hello).await?;
        let first = timeout(WELCOME_WITHIN, session.receive()).await.context("no answer to hello")??;
        let (Some("welcome"), Some(answer)) = (first["t"].as_str(), first["answer"].as_str()) else {
            bail!("not admitted: {first}");
        };
        Ok((session, answer.to_owned()))
    }

    /// Sends a numbered message.
    async fn say(&mut self, mut message: Value) -> anyhow::Result<()> {
        self.sent += 1;
        message["s"] = self.sent.into();
        self.send(message).await
    }

    /// Sends a message; each acknowledges what was seen.
    async fn send(&mut self, mut message: Value) -> anyhow::Result<()> {
        message["a"] = self.seen.into();
        self.acknowledged = self.seen;
        self.ack_at = None;
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// The next message that is new. Waiting for it may be given up at any time.
    async fn receive(&mut self) -> anyhow::Result<Value> {
        loop {
            let text = match self.socket.next().await.context("the connection was lost")?? {
                Message::Text(text) => text,
                Message::Close(frame) => bail!("the server closed the connection: {frame:?}"),
                _ => continue, // tungstenite answers pings by itself
            };
            self.messages += 1;
            self.bytes += text.len() as u64;
            let message: Value = serde_json::from_str(&text)?;
            if let Some(s) = message["s"].as_u64() {
                if s <= self.seen {
                    continue;
                }
                self.seen = s;
                self.ack_at.get_or_insert_with(|| Instant::now() + ACK_AFTER);
            }
            return Ok(message);
        }
    }

    /// Keeps the session going until something happens that ends it. May be given up at any time.
    pub(crate) async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            let due = [Some(self.ping_at), self.pong_until, self.ack_at].into_iter().flatten().min();
            let due = due.expect("pings never end");
            tokio::select! {
                message = self.receive() => self.heed(&message?)?,
                () = tokio::time::sleep_until(due) => {}
            }
            let now = Instant::now();
            if self.pong_until.is_some_and(|until| until <= now) {
                bail!("the server does not answer");
            }
            if self.ping_at <= now {
                self.ping_at = now + PING_EVERY;
                self.pong_until = Some(now + PONG_WITHIN);
                self.send(json!({"t": "ping"})).await?;
            } else if self.seen - self.acknowledged >= ACK_AFTER_MESSAGES
                || self.ack_at.is_some_and(|at| at <= now)
            {
                self.send(json!({"t": "ack"})).await?;
            }
        }
    }

    fn heed(&mut self, message: &Value) -> anyhow::Result<()> {
        match message["t"].as_str() {
            Some("pong") => self.pong_until = None,
            Some("restart") if self.signaling_only => {}
            Some("restart" | "goaway" | "error" | "refuse") => bail!("the server says {message}"),
            _ => {} // rosters and slots: a publisher looks at nobody
        }
        Ok(())
    }

    /// Leaves, and waits until the server has heard it.
    pub(crate) async fn leave(mut self) -> anyhow::Result<()> {
        self.say(json!({"t": "bye"})).await?;
        // The server answers by closing the carrier, which ends the reading with an error.
        let _ = timeout(Duration::from_secs(2), async { while self.receive().await.is_ok() {} }).await;
        Ok(())
    }
}
