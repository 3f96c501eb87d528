//! The WebSocket carrier: one task for each connection, between a socket and a room.
//!
//! A connection that breaks ends here and nowhere else: the session waits in its room for the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use crate::observe::reason::Reason;

use super::carrier::{Carrier, Close, Outgoing};
use super::gate::{Origin, admit, check_page, hello_missing, tell};
use super::limit::Rate;
use super::message::{Incoming, Objection, decode};
use super::now;
use super::rooms::{Event, Handle, Rooms, sleep_until};

/// After this much silence the client is asked for a sign of life. Lower notices dead connections sooner, higher
/// costs fewer packets and wakes fewer phones.
const ASK_AFTER: Duration = Duration::from_secs(2);
/// A single message that cannot be written for this long ends the connection. More rides out longer
/// interruptions of a network, less frees what a dead client holds.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// What remains to be said at the end must be written within this.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// `GET /v1/ws`.
pub(super) async fn upgrade(State(rooms): State<Arc<Rooms>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let settings = &rooms.door.settings;
    let origin = check_page(&rooms, &parts.headers)
        .and_then(|()| Origin::of(&rooms, &parts.headers, &parts.extensions));
    let origin = match origin {
        Ok(origin) => origin,
        Err((status, reason)) => {
            rooms.door.refused.count(reason);
            return (status, axum::Json(serde_json::json!({ "reason": reason }))).into_response();
        }
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    upgrade
        .max_message_size(settings.sizes.frame_bytes)
        .max_frame_size(settings.sizes.frame_bytes)
        .on_upgrade(move |socket| Connection::run(socket, rooms, origin))
}

/// What the socket brought.
enum Arrived {
    Text(Utf8Bytes),
    /// A pong, or a frame that means nothing here.
    Alive,
    Binary,
    TooLarge,
    /// `clean`: the client meant to leave.
    Gone {
        clean: bool,
    },
}

struct Connection {
    socket: WebSocket,
    rooms: Arc<Rooms>,
    carrier: Carrier,
    outgoing: Outgoing,
    /// When the client was last asked for a sign of life.
    asked: Instant,
    rate: Rate,
    origin: Origin,
}

impl Connection {
    async fn run(socket: WebSocket, rooms: Arc<Rooms>, origin: Origin) {
        let _counted = rooms.count_connection();
        let (carrier, outgoing) = Carrier::new(now());
        let rate = Rate::of_messages(&rooms.door.settings);
        let mut connection = Self { socket, rooms, carrier, outgoing, asked: now(), rate, origin };
        let room = connection.open().await;
        if let Some(room) = room {
            let clean = connection.carry(&room).await;
            // A room that is over needs no news.
            let _ = room.send(Event::Lost { carrier: connection.carrier.id(), clean }).await;
        }
        // A client that does not even take its goodbye is left alone.
        let _ = timeout(CLOSE_WITHIN, connection.close()).await;
    }

    /// The first message decides which room this connection belongs to.
    async fn open(&mut self) -> Option<Handle> {
        let within = self.rooms.door.settings.hello_within;
        let first = timeout(within, async {
            loop {
                match receive(&mut self.socket).await {
                    Arrived::Alive => {}
                    arrived => return arrived,
                }
            }
        });
        let incoming = match first.await {
            Ok(Arrived::Text(text)) => decode(&text, &self.rooms.door.settings.sizes),
            Ok(Arrived::Binary) => Err(binary()),
            Ok(Arrived::TooLarge) => {
                self.too_large();
                return None;
            }
            Ok(Arrived::Alive | Arrived::Gone { .. }) => return None,
            Err(_) => Err(hello_missing("The first message did not come in time.")),
        };
        admit(&self.rooms, &self.carrier, &self.origin, incoming).await
    }

    /// Both directions until either ends; returns whether the client meant to leave.
    async fn carry(&mut self, room: &Handle) -> bool {
        // What arrived above the permitted rate, and when it is let through. Nothing is read meanwhile, so the
        // client is slowed down by its own connection and loses nothing.
        let mut held: Option<(Option<Utf8Bytes>, Instant)> = None;
        loop {
            let through = held.as_ref().map(|(_, at)| *at);
            let asks_at = self.asks_at();
            tokio::select! {
                biased;
                text = self.outgoing.next() => {
                    let Some(text) = text else { return false };
                    if !self.write(Message::Text(text.into())).await {
                        return false;
                    }
                }
                arrived = receive(&mut self.socket), if through.is_none() => {
                    self.carrier.heard(now());
                    match arrived {
                        Arrived::Text(text) => held = Some((Some(text), now())),
                        Arrived::Alive => held = Some((None, now())),
                        Arrived::Binary => {
                            if !self.tell(room, Err(binary())).await {
                                return false;
                            }
                        }
                        Arrived::TooLarge => {
                            self.too_large();
                            return false;
                        }
                        Arrived::Gone { clean } => return clean,
                    }
                }
                () = sleep_until(through), if through.is_some() => {
                    let Some((text, _)) = held.take() else { continue };
                    if let Err(wait) = self.pay(text.as_deref().map_or(0, str::len)) {
                        held = Some((text, now() + wait));
                    } else if let Some(text) = text {
                        let incoming = decode(&text, &self.rooms.door.settings.sizes);
                        if !self.tell(room, incoming).await {
                            return false;
                        }
                    }
                }
                () = sleep_until(Some(asks_at)) => {
                    self.asked = now();
                    if !self.write(Message::Ping(axum::body::Bytes::new())).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Returns false when the room is over.
    async fn tell(&mut self, room: &Handle, incoming: Result<Incoming, Objection>) -> bool {
        let told = tell(room, self.carrier.id(), incoming).await;
        if !told {
            self.carrier.close(Close::Ended);
        }
        told
    }

    /// Counts a message of `bytes`, or says how long it must wait.
    fn pay(&self, bytes: usize) -> Result<(), Duration> {
        self.rate.pay_message(bytes).inspect_err(|_| self.rooms.door.refused.count(Reason::RateLimited))
    }

    fn asks_at(&self) -> Instant {
        self.carrier.last_heard().max(self.asked) + ASK_AFTER
    }

    fn too_large(&self) {
        self.rooms.door.refused.count(Reason::MessageTooLarge);
        self.carrier.close(Close::TooLarge);
    }

    async fn write(&mut self, message: Message) -> bool {
        matches!(timeout(WRITE_WITHIN, self.socket.send(message)).await, Ok(Ok(())))
    }

    /// Says what is still to be said, and why this is the end.
    async fn close(&mut self) {
        let Some(why) = self.outgoing.closing() else { return };
        while let Some(text) = self.outgoing.next().await {
            if !self.write(Message::Text(text.into())).await {
                return;
            }
        }
        let frame = CloseFrame { code: why.code(), reason: Utf8Bytes::from_static("") };
        if self.write(Message::Close(Some(frame))).await {
            // Dropping the socket with something unread in it would reset the connection, and the client might
            // never see the code.
            while !matches!(receive(&mut self.socket).await, Arrived::Gone { .. } | Arrived::TooLarge) {}
        }
    }
}

async fn receive(socket: &mut WebSocket) -> Arrived {
    match socket.recv().await {
        Some(Ok(Message::Text(text))) => Arrived::Text(text),
        Some(Ok(Message::Binary(_))) => Arrived::Binary,
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Arrived::Alive,
        Some(Ok(Message::Close(frame))) => {
            Arrived::Gone { clean: frame.is_some_and(|frame| matches!(frame.code, 1000 | 1001)) }
        }
        // axum hides the kind of the error; its text is the only witness, and a test watches it.
        Some(Err(error)) if error.to_string().contains("too long") => Arrived::TooLarge,
        Some(Err(_)) | None => Arrived::Gone { clean: false },
    }
}

fn binary() -> Objection {
    Objection::new(Reason::MessageMalformed, "Messages are text frames.")
}
