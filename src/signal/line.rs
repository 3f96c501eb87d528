//! A carrier without a connection: texts in, texts out. Tests talk to rooms through it as clients do, but for the socket.

use std::sync::Arc;

use super::carrier::{Carrier, Outgoing};
use super::join::validate;
use super::message::{FromClient, Incoming, Objection, decode};
use super::now;
use super::room::refuse;
use super::rooms::{Event, Handle, Rooms};
use crate::observe::reason::Reason;

/// See the module.
pub struct Line {
    rooms: Arc<Rooms>,
    carrier: Carrier,
    room: Option<Handle>,
}

impl Line {
    /// A new carrier on which nothing was said, and what comes out of it.
    #[must_use]
    pub fn new(rooms: Arc<Rooms>) -> (Self, Outgoing) {
        let (carrier, outgoing) = Carrier::new(now());
        (Self { rooms, carrier, room: None }, outgoing)
    }

    /// Takes the next text; the first must be `hello` or `resume`. Returns false when nobody listens (any more).
    pub async fn take(&mut self, text: &str) -> bool {
        self.heard();
        let incoming = decode(text, &self.rooms.door.settings.sizes);
        match &self.room {
            None => {
                self.room = self.open(incoming).await;
                self.room.is_some()
            }
            Some(room) => {
                let incoming =
                    incoming.unwrap_or_else(|objection| Incoming { s: None, a: 0, body: Err(objection) });
                room.send(Event::Message { carrier: self.carrier.id(), incoming }).await.is_ok()
            }
        }
    }

    async fn open(&self, incoming: Result<Incoming, Objection>) -> Option<Handle> {
        let carrier = self.carrier.clone();
        let refused = match incoming {
            Ok(Incoming { s, body: Ok(Some(FromClient::Hello(hello))), .. }) => {
                match validate(*hello, &self.rooms.door.settings) {
                    Ok(valid) => return self.rooms.enter(valid, s.unwrap_or(1), carrier).await,
                    Err(objection) => objection,
                }
            }
            Ok(Incoming { body: Ok(Some(FromClient::Resume(resume))), .. }) => {
                return self.rooms.resume(resume, carrier).await;
            }
            Ok(Incoming { body: Ok(_), .. }) => {
                Objection::new(Reason::HelloMissing, "First hello or resume.")
            }
            Ok(Incoming { body: Err(objection), .. }) | Err(objection) => objection,
        };
        refuse(&self.rooms.door, &carrier, refused);
        None
    }

    /// A sign of life without a message.
    pub fn heard(&self) {
        self.carrier.heard(now());
    }

    /// The connection ended. `clean`: the client meant it.
    pub async fn lose(self, clean: bool) {
        if let Some(room) = self.room {
            // A room that is over needs no news.
            let _ = room.send(Event::Lost { carrier: self.carrier.id(), clean }).await;
        }
    }
}
